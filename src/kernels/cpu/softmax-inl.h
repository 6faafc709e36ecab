// softmax-inl.h - the two passes over a row that softmax and cross-entropy share: its maximum, then the sum of exp(x - max).
//
// -inf entries give exact zeros; +Inf or NaN in the row, or nothing but -inf, makes the sum NaN.
#if defined(MEZZO_KERNELS_CPU_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_SOFTMAX_INL_H_
#undef MEZZO_KERNELS_CPU_SOFTMAX_INL_H_
#else
#define MEZZO_KERNELS_CPU_SOFTMAX_INL_H_
#endif

#include <limits>

#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// exp(x) for x <= 0 (or barely above): as Exp, but below exp(-87), near the smallest normal number, it is 0, which halves the work.
/// NaN stays NaN.
template <class D, class V> HWY_INLINE V ExpBelowZero(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, 0x1.8p23f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 0x1.715476p0f), magic);  // its low bits: n, of x = n ln 2 + r
  const V n = hn::Sub(shifted, magic);
  const V r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20f), hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1f), x));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, shifted), hn::Set(di, 127))));
  const V y = hn::Mul(hn::Add(Expm1Reduced(d, r), hn::Set(d, 1.0f)), power);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0f)), y);
}

/// Largest of x (n). A NaN may be passed over here: the sum of exponentials shows it.
template <class D, class T> HWY_INLINE float RowMax(D d, const T* x, std::size_t n) {
  using V = hn::VFromD<D>;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  const V max = Fold(
      d, n, lowest, [&](V acc, std::size_t i, auto access) MEZZO_BODY { return hn::Max(acc, access.Keep(d, access.Load(d, x + i), lowest)); },
      [](V a, V b) MEZZO_BODY { return hn::Max(a, b); });
  return hn::GetLane(hn::MaxOfLanes(d, max));
}

/// sum of exp(x - max) over x (n); each vector of exponentials is handed to keep(i, e, access).
template <class D, class T, class KeepExp> HWY_INLINE float SumExp(D d, const T* x, float max, std::size_t n, KeepExp keep) {
  using V = hn::VFromD<D>;
  const V shift = hn::Set(d, max);
  return static_cast<float>(Sum(d, n, [&](std::size_t i, auto access) MEZZO_BODY {
    const V e = ExpBelowZero(d, hn::Sub(access.Load(d, x + i), shift));
    keep(i, e, access);
    return e;
  }));
}

template <class D, class T> HWY_INLINE float SumExp(D d, const T* x, float max, std::size_t n) {
  return SumExp(d, x, max, n, [](std::size_t, auto, auto) MEZZO_BODY {});
}

/// log(x) by the vector code: the same bits whatever the C library.
HWY_INLINE float LogOf(float x) {
  const hn::ScalableTag<float> d;
  return hn::GetLane(Log(d, hn::Set(d, x)));
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
