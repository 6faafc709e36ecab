// unary_backward.cpp - dx = dy f'(s), element by element. f32, f16, bf16: arithmetic in f32, one rounding on store. f64: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/unary_backward.cpp"
#include <hwy/foreach_target.h>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/unary-inl.h"
#include "kernels/enumerate.h"
#include "kernels/ref/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

template <Unary op> struct Derivative {
  template <class D, class V> HWY_INLINE V operator()(D d, V s, V dy) const { return Differentiate<op>(d, s, dy); }
};

template <Unary op, class T> void BackwardLoop(const void* s, const void* dy, void* dx, std::int64_t n) {
  Map(n, static_cast<T*>(dx), Derivative<op>(), Elements<T>{static_cast<const T*>(s)}, Elements<T>{static_cast<const T*>(dy)});
}

using BackwardSpan = void (*)(const void* s, const void* dy, void* dx, std::int64_t n);

template <class T> BackwardSpan BackwardSpanOf(Unary op) {
  return with_constant(op, [](auto which) -> BackwardSpan { return BackwardLoop<decltype(which)::value, T>; });
}

BackwardSpan PickBackward(Unary op, Dtype t) {
  return t == f32 ? BackwardSpanOf<float>(op) : t == f16 ? BackwardSpanOf<f16_t>(op) : BackwardSpanOf<bf16_t>(op);
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickBackward);

}  // namespace

bool derivative_from_output(Unary op) {
  switch (op) {
    case Unary::exp:
    case Unary::sqrt:
    case Unary::rsqrt:
    case Unary::tanh:
    case Unary::sigmoid:
    case Unary::relu: return true;
    default: return false;
  }
}

void unary_backward(Queue& queue, Unary op, Dtype dtype, const void* s, const void* dy, void* dx, std::int64_t n) {
  if (op == Unary::neg) return unary(queue, op, dtype, dy, dx, n);  // s may be null
  if (dtype == f64) {
    with_constant(op, [&](auto which) {
      parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
        const auto *saved = static_cast<const double*>(s), *from = static_cast<const double*>(dy);
        auto* to = static_cast<double*>(dx);
        for (std::int64_t i = begin; i < end; ++i) to[i] = ref::unary_backward<which()>(saved[i], from[i]);
      });
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickBackward)(op, dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain, [&](std::int64_t begin, std::int64_t end) { span(at(s, begin, bytes), at(dy, begin, bytes), at(dx, begin, bytes), end - begin); },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
