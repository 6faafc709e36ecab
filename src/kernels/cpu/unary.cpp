// unary.cpp - y = f(x), element by element. f32, f16, bf16: arithmetic in f32, one rounding on store. f64: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/unary.cpp"
#include <hwy/foreach_target.h>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/unary-inl.h"
#include "kernels/enumerate.h"
#include "kernels/ref/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

template <Unary op> struct Function {
  template <class D, class V> HWY_INLINE V operator()(D d, V x) const { return Evaluate<op>(d, x); }
};

template <Unary op, class T> void UnaryLoop(const void* x, void* y, std::int64_t n) {
  Map(n, static_cast<T*>(y), Function<op>(), Elements<T>{static_cast<const T*>(x)});
}

using UnarySpan = void (*)(const void* x, void* y, std::int64_t n);

template <class T> UnarySpan UnarySpanOf(Unary op) {
  return with_constant(op, [](auto which) -> UnarySpan { return UnaryLoop<decltype(which)::value, T>; });
}

UnarySpan PickUnary(Unary op, Dtype t) { return t == f32 ? UnarySpanOf<float>(op) : t == f16 ? UnarySpanOf<f16_t>(op) : UnarySpanOf<bf16_t>(op); }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickUnary);

}  // namespace

void unary(Queue&, Unary op, Dtype dtype, const void* x, void* y, std::int64_t n) {
  if (dtype == f64) {
    with_constant(op, [&](auto which) {
      parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
        const auto* from = static_cast<const double*>(x);
        auto* to = static_cast<double*>(y);
        for (std::int64_t i = begin; i < end; ++i) to[i] = ref::unary<which()>(from[i]);
      });
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickUnary)(op, dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain, [&](std::int64_t begin, std::int64_t end) { span(at(x, begin, bytes), at(y, begin, bytes), end - begin); }, kAlign);
}

}  // namespace mezzo::kernels
#endif
