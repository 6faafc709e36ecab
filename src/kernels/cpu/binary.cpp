// binary.cpp - y = a op b with broadcasting, and with a number. f32, f16, bf16: arithmetic in f32, one rounding on store. Others: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/binary.cpp"
#include <hwy/foreach_target.h>

#include "dtype/dispatch.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/math64-inl.h"
#include "kernels/enumerate.h"
#include "kernels/ref/convert.h"
#include "kernels/ref/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

template <Binary op> struct Operation {
  template <class D, class V> HWY_INLINE V operator()(D d, V a, V b) const {
    if constexpr (op == Binary::add) return hn::Add(a, b);
    else if constexpr (op == Binary::sub) return hn::Sub(a, b);
    else if constexpr (op == Binary::mul) return hn::Mul(a, b);
    else if constexpr (op == Binary::div) return hn::Div(a, b);
    else if constexpr (op == Binary::pow) return Pow(d, a, b);
    else {  // NaN if either is
      const auto first = op == Binary::maximum ? hn::Gt(a, b) : hn::Lt(a, b);
      return hn::IfThenElse(hn::Or(first, hn::IsNaN(a)), a, b);
    }
  }
};

template <Binary op, class T> void BinaryLoop(const Span& s) {
  const T *a = s.as<T>(1), *b = s.as<T>(2);
  if (s.splat == 1) Map(s.n, s.as<T>(0), Operation<op>(), Constant{static_cast<float>(*a)}, Elements<T>{b});
  else if (s.splat == 2) Map(s.n, s.as<T>(0), Operation<op>(), Elements<T>{a}, Constant{static_cast<float>(*b)});
  else Map(s.n, s.as<T>(0), Operation<op>(), Elements<T>{a}, Elements<T>{b});
}

// The number is f32: not rounded to T first.
template <Binary op, class T> void ScalarLoop(const void* x, float value, bool value_first, void* y, std::int64_t n) {
  const Elements<T> elements{static_cast<const T*>(x)};
  if (value_first) Map(n, static_cast<T*>(y), Operation<op>(), Constant{value}, elements);
  else Map(n, static_cast<T*>(y), Operation<op>(), elements, Constant{value});
}

using BinarySpan = void (*)(const Span&);
using ScalarSpan = void (*)(const void* x, float value, bool value_first, void* y, std::int64_t n);

template <class T> BinarySpan BinarySpanOf(Binary op) {
  return with_constant(op, [](auto which) -> BinarySpan { return BinaryLoop<decltype(which)::value, T>; });
}
template <class T> ScalarSpan ScalarSpanOf(Binary op) {
  return with_constant(op, [](auto which) -> ScalarSpan { return ScalarLoop<decltype(which)::value, T>; });
}

BinarySpan PickBinary(Binary op, Dtype t) {
  return t == f32 ? BinarySpanOf<float>(op) : t == f16 ? BinarySpanOf<f16_t>(op) : BinarySpanOf<bf16_t>(op);
}
ScalarSpan PickScalar(Binary op, Dtype t) {
  return t == f32 ? ScalarSpanOf<float>(op) : t == f16 ? ScalarSpanOf<f16_t>(op) : ScalarSpanOf<bf16_t>(op);
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickBinary);
HWY_EXPORT(PickScalar);

bool vectorised(Dtype t) { return t == f32 || is_16bit(t); }

// f.operator()<op, T>() for the dtypes that ref/ serves: f64 with every op, integers without division and pow.
template <class F> void with_plain(Binary op, Dtype dtype, F&& f) {
  with_constant(op, [&](auto which) {
    dispatch_number(dtype, "binary", [&]<class T>() {
      constexpr Binary kOp = decltype(which)::value;
      if constexpr (std::is_same_v<T, double> || (std::is_integral_v<T> && kOp != Binary::div && kOp != Binary::pow)) f.template operator()<kOp, T>();
      else fail("binary", fmt::format("got dtype {}, wanted a floating dtype for division and pow", name(dtype)));
    });
  });
}

template <Binary op, class T> void plain_loop(const Span& s) {
  T* y = s.as<T>(0);
  const T *a = s.as<T>(1), *b = s.as<T>(2);
  if (s.splat == 1) {
    for (std::int64_t i = 0; i < s.n; ++i) y[i] = ref::binary<op>(*a, b[i]);
  } else if (s.splat == 2) {
    for (std::int64_t i = 0; i < s.n; ++i) y[i] = ref::binary<op>(a[i], *b);
  } else {
    for (std::int64_t i = 0; i < s.n; ++i) y[i] = ref::binary<op>(a[i], b[i]);
  }
}

}  // namespace

void binary(Queue&, Binary op, Dtype dtype, const void* a, const void* b, void* y, const Strided& space) {
  const std::size_t bytes = size_of(dtype);
  const auto run = [&](void (*loop)(const Span&)) {
    for_each_span(space, {bytes, bytes, bytes}, {y, const_cast<void*>(a), const_cast<void*>(b)}, loop);
  };
  if (vectorised(dtype)) return run(HWY_DYNAMIC_DISPATCH(PickBinary)(op, dtype));
  with_plain(op, dtype, [&]<Binary which, class T>() { run(plain_loop<which, T>); });
}

void binary_scalar(Queue&, Binary op, Dtype dtype, const void* x, double value, bool value_first, void* y, std::int64_t n) {
  if (vectorised(dtype)) {
    const auto span = HWY_DYNAMIC_DISPATCH(PickScalar)(op, dtype);
    const std::size_t bytes = size_of(dtype);
    parallel_for(
        n, kGrain,
        [&](std::int64_t begin, std::int64_t end) {
          span(at(x, begin, bytes), static_cast<float>(value), value_first, at(y, begin, bytes), end - begin);
        },
        kAlign);
    return;
  }
  with_plain(op, dtype, [&]<Binary which, class T>() {
    T number = ref::cast<T>(value);
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
      Span span{.splat = value_first ? 1 : 2, .n = end - begin};
      void* from = const_cast<void*>(at(x, begin, sizeof(T)));
      span.p = {at(y, begin, sizeof(T)), value_first ? &number : from, value_first ? from : &number};
      plain_loop<which, T>(span);
    });
  });
}

}  // namespace mezzo::kernels
#endif
