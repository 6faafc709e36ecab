// math64-inl.h - functions of f32 that need more than f32 inside: sin, cos and pow, computed in f64 lanes and rounded once.
// Long functions: called, not inlined.
#if defined(MEZZO_KERNELS_CPU_MATH64_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_MATH64_INL_H_
#undef MEZZO_KERNELS_CPU_MATH64_INL_H_
#else
#define MEZZO_KERNELS_CPU_MATH64_INL_H_
#endif

#include <cstdint>
#include <limits>

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/reduce_angle.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// f(d64, x...) on f64 lanes of f32 vectors, rounded back.
template <class D, class F, class... V> HWY_INLINE hn::VFromD<D> InF64(D d, F f, V... x) {
#if HWY_TARGET == HWY_SCALAR
  const hn::Rebind<double, D> d64;
  return hn::Set(d, static_cast<float>(hn::GetLane(f(d64, hn::PromoteTo(d64, x)...))));  // Highway's one-lane DemoteTo gives FLT_MAX for Inf
#else
  const hn::Half<D> half;
  const hn::Rebind<double, decltype(half)> d64;
  const auto low = hn::DemoteTo(half, f(d64, hn::PromoteTo(d64, hn::LowerHalf(half, x))...));
  const auto high = hn::DemoteTo(half, f(d64, hn::PromoteTo(d64, hn::UpperHalf(half, x))...));
  return hn::Combine(d, high, low);
#endif
}

// ---- sin and cos -----------------------------------------------------------------------------------

/// sin(x + quarter pi / 2) of f64 lanes, |x| < 2^25, to f32's precision.
template <class D, class V> HWY_INLINE V SinOfQuarter(D d, V x, std::uint64_t quarter) {
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 0x1.8p52);
  const V shifted = hn::MulAdd(x, hn::Set(d, 0x1.45f306dc9c883p-1), magic);  // 2 / pi
  const V n = hn::Sub(shifted, magic);
  // pi / 2 as 28 bits, whose product with n is exact, and the rest.
  const V r = hn::NegMulAdd(n, hn::Set(d, 0x1.10b4611a62633p-30), hn::NegMulAdd(n, hn::Set(d, 0x1.921fb54000000p+0), x));
  const auto q = hn::Add(hn::BitCast(du, shifted), hn::Set(du, quarter));
  const V z = hn::Mul(r, r);
  const V sine = hn::Mul(r, Polynomial(d, z, 1.0, -0x1.5555554c8dbd7p-3, 0x1.11110875cac6dp-7, -0x1.a00f835d68166p-13, 0x1.6cd20cc515bc9p-19));
  const V cosine =
      hn::MulAdd(hn::Mul(z, z), Polynomial(d, z, 0x1.5555554f2f21p-5, -0x1.6c16b876b5849p-10, 0x1.a011095d2a845p-16, -0x1.242613413a6cp-22),
                 hn::MulAdd(z, hn::Set(d, -0.5), hn::Set(d, 1.0)));
  const auto odd = hn::Ne(hn::And(q, hn::Set(du, 1u)), hn::Zero(du));
  const V y = hn::IfThenElse(hn::RebindMask(d, odd), cosine, sine);
  return hn::Xor(y, hn::BitCast(d, hn::ShiftLeft<62>(hn::And(q, hn::Set(du, 2u)))));
}

struct SinOf {
  std::uint64_t quarter;
  template <class D, class V> HWY_INLINE V operator()(D d, V x) const { return SinOfQuarter(d, x, quarter); }
};

/// sin(x + quarter pi / 2) for any f32. Inf gives NaN.
template <class D, class V> HWY_NOINLINE V SinCos(D d, V x, std::uint64_t quarter) {
  if (HWY_LIKELY(hn::AllFalse(d, hn::Ge(hn::Abs(x), hn::Set(d, kLargeAngle))))) return InF64(d, SinOf{quarter}, x);
  // Huge angles, where rounding pi / 2 to f64 would show: the same function of the remainder.
  HWY_ALIGN float lanes[hn::MaxLanes(d)];
  hn::Store(x, d, lanes);
  const hn::CappedTag<double, 1> one;
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) {
    const Angle a = reduce_angle(lanes[i]);
    lanes[i] = static_cast<float>(hn::GetLane(SinOfQuarter(one, hn::Set(one, a.remainder), a.quarter + quarter)));
  }
  return hn::Load(d, lanes);
}
template <class D, class V> HWY_INLINE V Sin(D d, V x) { return SinCos(d, x, 0); }
template <class D, class V> HWY_INLINE V Cos(D d, V x) { return SinCos(d, x, 1); }

// ---- pow -------------------------------------------------------------------------------------------

/// ln x of positive f64 lanes that came from f32, to a relative 2^-44; 0 gives -Inf, Inf gives Inf.
template <class D, class V> HWY_INLINE V LogF64(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const auto sqrt_half = hn::Set(du, 0x3fe6a09e667f3bcdull);
  const auto bits = hn::Sub(hn::BitCast(du, x), sqrt_half);
  const V m = hn::BitCast(d, hn::Add(hn::And(bits, hn::Set(du, 0x000fffffffffffffull)), sqrt_half));
  // The exponent, biased by 1024 to stay positive, as the low bits of a double.
  const auto biased = hn::ShiftRight<52>(hn::Add(bits, hn::Set(du, 0x4000000000000000ull)));
  const V e = hn::Sub(hn::BitCast(d, hn::Or(biased, hn::BitCast(du, hn::Set(d, 0x1p52)))), hn::Set(d, 0x1p52 + 1024));
  const V s = hn::Div(hn::Sub(m, hn::Set(d, 1.0)), hn::Add(m, hn::Set(d, 1.0))), z = hn::Mul(s, s);
  const V p = Polynomial(d, z, 0x1.555555561e498p-1, 0x1.999996a938198p-2, 0x1.249411f55750ap-2, 0x1.c62b13bf225f9p-3, 0x1.91157f6ddfe58p-3);
  const V y = hn::MulAdd(e, hn::Set(d, 0x1.62e42fefa39efp-1), hn::MulAdd(hn::Mul(s, z), p, hn::Add(s, s)));
  constexpr double kInf = std::numeric_limits<double>::infinity();
  return hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Set(d, -kInf), hn::IfThenElse(hn::Lt(x, hn::Set(d, kInf)), y, x));
}

/// exp x of f64 lanes, to a relative 2^-39 within f32's range, 0 and Inf (as f32) beyond it.
template <class D, class V> HWY_INLINE V ExpF64(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const V magic = hn::Set(d, 0x1.8p52), low = hn::Set(d, -110.0), high = hn::Set(d, 95.0);
  const V t = hn::IfThenElse(hn::Gt(x, high), high, hn::IfThenElse(hn::Lt(x, low), low, x));
  const V shifted = hn::MulAdd(t, hn::Set(d, 0x1.71547652b82fep0), magic);
  const V r = hn::NegMulAdd(hn::Sub(shifted, magic), hn::Set(d, 0x1.62e42fefa39efp-1), t);
  const V p = Polynomial(d, r, 0x1.000000005e54dp-1, 0x1.5555557dd30bep-3, 0x1.5555541e81e7fp-5, 0x1.1110a2695a758p-7, 0x1.6c18d2e98c4cfp-10,
                         0x1.a1854e3c6a3dfp-13, 0x1.9e8949a3db3ep-16);
  const V y = hn::MulAdd(hn::Mul(r, r), p, hn::Add(r, hn::Set(d, 1.0)));
  const auto power = hn::ShiftLeft<52>(hn::Add(hn::BitCast(du, shifted), hn::Set(du, 1023u)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Mul(y, hn::BitCast(d, power)));
}

struct PowOfPositive {
  template <class D, class V> HWY_INLINE V operator()(D d, V a, V b) const { return ExpF64(d, hn::Mul(b, LogF64(d, a))); }
};

/// a^b, with C's special cases (C11 F.10.4.4).
template <class D, class V> HWY_NOINLINE V Pow(D d, V a, V b) {
  const V one = hn::Set(d, 1.0f), zero = hn::Zero(d), magnitude = hn::Abs(a), exponent = hn::Abs(b);
  V y = InF64(d, PowOfPositive(), magnitude, b);
  // Of |b| >= 2^24 all are even integers, below that 2^23 is where fractions end.
  const V whole = hn::Trunc(b), halved = hn::Mul(b, hn::Set(d, 0.5f));
  const auto integer = hn::Or(hn::Eq(whole, b), hn::Ge(exponent, hn::Set(d, 0x1p23f)));
  const auto odd = hn::And(hn::And(integer, hn::Lt(exponent, hn::Set(d, 0x1p24f))), hn::Ne(hn::Trunc(halved), halved));
  y = hn::IfThenElse(odd, hn::CopySignToAbs(y, a), y);
  const auto finite_negative = hn::And(hn::Lt(a, zero), hn::Lt(magnitude, hn::Set(d, std::numeric_limits<float>::infinity())));
  y = hn::IfThenElse(hn::AndNot(integer, finite_negative), hn::Set(d, std::numeric_limits<float>::quiet_NaN()), y);
  const auto unit = hn::And(hn::Eq(magnitude, one), hn::Eq(exponent, hn::Set(d, std::numeric_limits<float>::infinity())));
  return hn::IfThenElse(hn::Or(hn::Or(hn::Eq(a, one), hn::Eq(b, zero)), unit), one, y);
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
