// compare.cpp - comparisons to bytes 0 or 1, and choices by such bytes, with broadcasting. 16-bit formats are compared as f32, which is exact.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/compare.cpp"
#include <hwy/foreach_target.h>

#include <cstring>

#include "dtype/dispatch.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/enumerate.h"
#include "kernels/ref/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

template <Compare op, class V> HWY_INLINE auto Compared(V a, V b) {
  if constexpr (op == Compare::eq) return hn::Eq(a, b);
  else if constexpr (op == Compare::ne) return hn::Not(hn::Eq(a, b));  // Highway 1.0.3's Ne is ordered on AVX-512: NaN would equal NaN
  else if constexpr (op == Compare::lt) return hn::Lt(a, b);
  else if constexpr (op == Compare::le) return hn::Le(a, b);
  else if constexpr (op == Compare::gt) return hn::Gt(a, b);
  else return hn::Ge(a, b);
}

template <Compare op, class A, class B> HWY_INLINE void CompareInto(std::uint8_t* y, std::int64_t n, A a, B b) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto one = hn::Set(di, 1);
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::DemoteTo(d8, hn::IfThenElseZero(hn::RebindMask(di, Compared<op>(a.load(d, i), b.load(d, i))), one)), d8, y + i);
  }
  if (i == n) return;
  HWY_ALIGN std::int32_t tail[hn::MaxLanes(di)];
  hn::Store(hn::IfThenElseZero(hn::RebindMask(di, Compared<op>(a.load(d, i, n - i), b.load(d, i, n - i))), one), di, tail);
  for (std::int64_t k = 0; i < n; ++i, ++k) y[i] = static_cast<std::uint8_t>(tail[k]);
}

template <Compare op, class T> void CompareLoop(const Span& s) {
  const T *a = s.as<T>(1), *b = s.as<T>(2);
  auto* y = s.as<std::uint8_t>(0);
  if (s.splat == 1) CompareInto<op>(y, s.n, Constant{static_cast<float>(*a)}, Elements<T>{b});
  else if (s.splat == 2) CompareInto<op>(y, s.n, Elements<T>{a}, Constant{static_cast<float>(*b)});
  else CompareInto<op>(y, s.n, Elements<T>{a}, Elements<T>{b});
}

using SpanLoop = void (*)(const Span&);

template <class T> SpanLoop CompareSpanOf(Compare op) {
  return with_constant(op, [](auto which) -> SpanLoop { return CompareLoop<decltype(which)::value, T>; });
}
SpanLoop PickCompare(Compare op, Dtype t) {
  return t == f32 ? CompareSpanOf<float>(op) : t == f16 ? CompareSpanOf<f16_t>(op) : CompareSpanOf<bf16_t>(op);
}

// ---- select ----------------------------------------------------------------------------------------

// An operand's vector at i, of elements of U (bits of some dtype) or of one.
template <class U> struct Bits {
  const U* p;
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t i) const { return hn::LoadU(d, p + i); }
  U operator[](std::int64_t i) const { return p[i]; }
};
template <class U> struct SameBits {
  U value;
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t) const { return hn::Set(d, value); }
  U operator[](std::int64_t) const { return value; }
};

template <class D> HWY_INLINE auto MaskFromBytes(D d, const std::uint8_t* condition) {
  using U = hn::TFromD<D>;
  const hn::Rebind<std::uint8_t, D> d8;
  const auto bytes = hn::LoadU(d8, condition);
  if constexpr (sizeof(U) == 1) {
    return hn::Ne(bytes, hn::Zero(d));
  } else if constexpr (sizeof(U) == 8) {
    return hn::Ne(hn::PromoteTo(d, hn::PromoteTo(hn::Rebind<std::uint32_t, D>(), bytes)), hn::Zero(d));
  } else {
    return hn::Ne(hn::PromoteTo(d, bytes), hn::Zero(d));
  }
}

template <class U, class A, class B> HWY_INLINE void SelectInto(U* y, const std::uint8_t* condition, std::int64_t n, A a, B b) {
  const hn::ScalableTag<U> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) hn::StoreU(hn::IfThenElse(MaskFromBytes(d, condition + i), a.load(d, i), b.load(d, i)), d, y + i);
  for (; i < n; ++i) y[i] = condition[i] ? a[i] : b[i];
}

template <class U> void SelectLoop(const Span& s) {
  U* y = s.as<U>(0);
  const auto* condition = s.as<std::uint8_t>(1);
  const U *a = s.as<U>(2), *b = s.as<U>(3);
  if (s.splat == 1) std::memmove(y, *condition ? a : b, static_cast<std::size_t>(s.n) * sizeof(U));
  else if (s.splat == 2) SelectInto(y, condition, s.n, SameBits<U>{*a}, Bits<U>{b});
  else if (s.splat == 3) SelectInto(y, condition, s.n, Bits<U>{a}, SameBits<U>{*b});
  else SelectInto(y, condition, s.n, Bits<U>{a}, Bits<U>{b});
}

SpanLoop PickSelect(std::size_t bytes) {
  switch (bytes) {
    case 1: return SelectLoop<std::uint8_t>;
    case 2: return SelectLoop<std::uint16_t>;
    case 4: return SelectLoop<std::uint32_t>;
    default: return SelectLoop<std::uint64_t>;
  }
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickCompare);
HWY_EXPORT(PickSelect);

template <Compare op, class T> void plain_loop(const Span& s) {
  auto* y = s.as<std::uint8_t>(0);
  const T *a = s.as<T>(1), *b = s.as<T>(2);
  const std::int64_t step_a = s.splat != 1, step_b = s.splat != 2;
  for (std::int64_t i = 0; i < s.n; ++i) y[i] = ref::compare<op>(a[i * step_a], b[i * step_b]);
}

}  // namespace

void compare(Queue&, Compare op, Dtype dtype, const void* a, const void* b, std::uint8_t* y, const Strided& space) {
  const std::size_t bytes = size_of(dtype);
  const auto run = [&](void (*loop)(const Span&)) { for_each_span(space, {1, bytes, bytes}, {y, const_cast<void*>(a), const_cast<void*>(b)}, loop); };
  if (dtype == f32 || is_16bit(dtype)) return run(HWY_DYNAMIC_DISPATCH(PickCompare)(op, dtype));
  with_constant(op, [&](auto which) {
    dispatch_all(dtype, "compare", [&]<class T>() {
      if constexpr (std::is_same_v<T, double> || std::is_integral_v<T>) run(plain_loop<decltype(which)::value, T>);
    });
  });
}

void select(Queue&, Dtype dtype, const std::uint8_t* condition, const void* a, const void* b, void* y, const Strided& space) {
  const std::size_t bytes = size_of(dtype);
  for_each_span(space, {bytes, 1, bytes, bytes}, {y, const_cast<std::uint8_t*>(condition), const_cast<void*>(a), const_cast<void*>(b)},
                HWY_DYNAMIC_DISPATCH(PickSelect)(bytes));
}

}  // namespace mezzo::kernels
#endif
