// math-inl.h - elementary functions on vectors of f32: the same algorithm on every target, a few ulp, right at every edge.
//
// Polynomials are minimax fits of tools/minimax.py. Errors against f64 are measured on every target by tests/kernels/unary_test.cpp.
// Nothing here needs a fused multiply-add to be accurate: the baseline target has none.
#if defined(MEZZO_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_MATH_INL_H_
#undef MEZZO_KERNELS_CPU_MATH_INL_H_
#else
#define MEZZO_KERNELS_CPU_MATH_INL_H_
#endif

#include <limits>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// c0 + x (c1 + x (c2 + ...)).
template <class D, class V, class C> HWY_INLINE V Polynomial(D d, V, C c) { return hn::Set(d, c); }
template <class D, class V, class C, class... Cs> HWY_INLINE V Polynomial(D d, V x, C c, Cs... rest) {
  return hn::MulAdd(x, Polynomial(d, x, rest...), hn::Set(d, c));
}

/// max(x, lo) and min(x, hi) that keep a NaN. On x86 the second operand of MINPS and MAXPS is what a NaN gives; other targets compare.
template <class D, class V> HWY_INLINE V AtLeast(D d, V x, float lo) {
  const V low = hn::Set(d, lo);
  if constexpr (HWY_TARGET <= HWY_AVX2) return hn::Max(low, x);
  else return hn::IfThenElse(hn::Lt(x, low), low, x);
}
template <class D, class V> HWY_INLINE V AtMost(D d, V x, float hi) {
  const V high = hn::Set(d, hi);
  if constexpr (HWY_TARGET <= HWY_AVX2) return hn::Min(high, x);
  else return hn::IfThenElse(hn::Gt(x, high), high, x);
}
template <class D, class V> HWY_INLINE V Clamp(D d, V x, float lo, float hi) { return AtMost(d, AtLeast(d, x, lo), hi); }

// ---- exp -----------------------------------------------------------------------------------------

/// x = n ln 2 + r, |r| <= ln 2 / 2; n is f32.
template <class D> struct ExpReduction { hn::VFromD<D> n, r; };

// Added to an f32 below 2^21, it rounds to an integer and leaves that in the low bits.
inline constexpr float kRoundingMagic = 0x1.8p23f;

/// Reduces head, or head + tail with |tail| well below |head|; |head| < 2^21. A NaN's r is NaN.
template <class D, class V, class... Tail> HWY_INLINE ExpReduction<D> ReduceExp(D d, V head, Tail... tail) {
  V sum = head;
  ((sum = hn::Add(sum, tail)), ...);
  const V magic = hn::Set(d, kRoundingMagic);
  const V n = hn::Sub(hn::MulAdd(sum, hn::Set(d, 0x1.715476p0f), magic), magic);
  V r = hn::NegMulAdd(n, hn::Set(d, 0x1.62e4p-1f), head);  // ln 2 to 15 bits: n times it is exact
  r = hn::NegMulAdd(n, hn::Set(d, 0x1.7f7d1cp-20f), r);
  ((r = hn::Add(r, tail)), ...);
  return {n, r};
}

/// exp(r) - 1 for a reduced r.
template <class D, class V> HWY_INLINE V Expm1Reduced(D d, V r) {
  const V p = Polynomial(d, r, 0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558fp-5f, 0x1.1239d4p-7f, 0x1.6a245ep-10f);
  return hn::MulAdd(hn::Mul(r, r), p, r);
}

/// 2^n for n, an integer in f32, in [-126, 127].
template <class D, class V> HWY_INLINE V PowerOfTwo(D d, V n) {
  const hn::RebindToSigned<D> di;  // the low bits of n + magic are n plus those of magic, which the shift drops
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, hn::Add(n, hn::Set(d, kRoundingMagic + 127)))));
}

/// v 2^n for n, an integer in f32, in [-252, 254], with one rounding where the result is subnormal.
template <class D, class V> HWY_INLINE V ScaleByPower(D d, V v, V n) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (hn::MaxLanes(D()) == 16) return V{_mm512_scalef_ps(v.raw, n.raw)};
#endif
  const V magic = hn::Set(d, kRoundingMagic), half = hn::Sub(hn::MulAdd(n, hn::Set(d, 0.5f), magic), magic);
  return hn::Mul(hn::Mul(v, PowerOfTwo(d, half)), PowerOfTwo(d, hn::Sub(n, half)));
}

template <class D> HWY_INLINE hn::VFromD<D> ExpOf(D d, ExpReduction<D> e) {
  return ScaleByPower(d, hn::Add(Expm1Reduced(d, e.r), hn::Set(d, 1.0f)), e.n);
}

template <class D, class V> HWY_INLINE V Exp(D d, V x) { return ExpOf(d, ReduceExp(d, Clamp(d, x, -105.0f, 90.0f))); }  // beyond: 0 and Inf

/// exp(-|x|).
template <class D, class V> HWY_INLINE V ExpOfMinusAbs(D d, V x) { return ExpOf(d, ReduceExp(d, AtLeast(d, hn::Neg(hn::Abs(x)), -105.0f))); }

// ---- log -----------------------------------------------------------------------------------------

template <class D, class V> HWY_INLINE V Log(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto subnormal = hn::Lt(x, hn::Set(d, 0x1p-126f));
  const V scaled = hn::IfThenElse(subnormal, hn::Mul(x, hn::Set(d, 0x1p23f)), x);
  const auto sqrt_half = hn::Set(di, 0x3f3504f3);
  const auto bits = hn::Sub(hn::BitCast(di, scaled), sqrt_half);
  // scaled = m 2^e, m in [sqrt(1/2), sqrt 2)
  const V m = hn::BitCast(d, hn::Add(hn::And(bits, hn::Set(di, 0x007fffff)), sqrt_half));
  const V e = hn::Sub(hn::ConvertTo(d, hn::ShiftRight<23>(bits)), hn::IfThenElseZero(subnormal, hn::Set(d, 23.0f)));
  const V f = hn::Sub(m, hn::Set(d, 1.0f)), square = hn::Mul(f, f);
  const V p = Polynomial(d, f, 0x1.555554p-2f, -0x1.000228p-2f, 0x1.99a008p-3f, -0x1.54723ap-3f, 0x1.22da24p-3f, -0x1.0d8562p-3f, 0x1.055b5ep-3f,
                         -0x1.38b504p-4f);
  V y = hn::MulAdd(hn::Mul(f, square), p, hn::Mul(e, hn::Set(d, 0x1.7f7d1cp-20f)));
  y = hn::Add(hn::NegMulAdd(hn::Set(d, 0.5f), square, y), f);
  y = hn::MulAdd(e, hn::Set(d, 0x1.62e4p-1f), y);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  y = hn::IfThenElse(hn::Lt(x, hn::Set(d, kInf)), y, x);  // Inf and NaN
  y = hn::IfThenElse(hn::Eq(x, hn::Zero(d)), hn::Set(d, -kInf), y);
  return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Set(d, std::numeric_limits<float>::quiet_NaN()), y);
}

/// log(1 + e) for e in [0, 1], to relative accuracy.
template <class D, class V> HWY_INLINE V Log1pUnit(D d, V e) {
  const V s = hn::Div(e, hn::Add(e, hn::Set(d, 2.0f))), z = hn::Mul(s, s);  // 2 artanh(s)
  const V p = Polynomial(d, z, 0x1.5555p-1f, 0x1.99d29ep-2f, 0x1.1eb3ap-2f, 0x1.1f058ap-2f);
  return hn::MulAdd(hn::Mul(s, z), p, hn::Add(s, s));
}

// ---- what exp gives ------------------------------------------------------------------------------

template <class D, class V> HWY_INLINE V Tanh(D d, V x) {
  const V t = AtMost(d, hn::Abs(x), 20.0f), one = hn::Set(d, 1.0f), two = hn::Set(d, 2.0f);
  const auto e = ReduceExp(d, hn::Add(t, t));
  const V scale = PowerOfTwo(d, e.n);
  const V expm1 = hn::MulAdd(scale, Expm1Reduced(d, e.r), hn::Sub(scale, one));  // of 2 |x|; exact for small x
  return hn::CopySignToAbs(hn::Div(expm1, hn::Add(expm1, two)), x);
}

/// s = 1 / (1 + exp(-x)) and 1 - s, each relatively accurate down to the subnormals.
template <class D> struct Logistic { hn::VFromD<D> s, rest; };

template <class D, class V> HWY_INLINE Logistic<D> LogisticOf(D d, V x) {
  const V one = hn::Set(d, 1.0f), e = ExpOfMinusAbs(d, x), larger = hn::Div(one, hn::Add(one, e)), smaller = hn::Mul(e, larger);
  const auto negative = hn::Lt(x, hn::Zero(d));
  return {hn::IfThenElse(negative, smaller, larger), hn::IfThenElse(negative, larger, smaller)};
}

template <class D, class V> HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f), e = ExpOfMinusAbs(d, x);
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

template <class D, class V> HWY_INLINE V Softplus(D d, V x) {
  const V relu = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  return hn::Add(relu, Log1pUnit(d, ExpOfMinusAbs(d, x)));
}

// ---- the normal distribution -----------------------------------------------------------------------

/// Phi(x) and exp(-x^2 / 2). Phi = 1 - Q for x >= 0 and Q(|x|) below, Q(t) = exp(-t^2 / 2) M(t): M, the tail without its exponential,
/// is u = 1 / (1 + 0.3 t) times a polynomial in u - 33/64. So the tail keeps its relative accuracy, which 0.5 (1 + erf) loses.
template <class D> struct Normal { hn::VFromD<D> cdf, exponential; };

template <class D, class V> HWY_INLINE Normal<D> NormalOf(D d, V x) {
  const hn::RebindToUnsigned<D> du;
  const V t = AtMost(d, hn::Abs(x), 15.0f), one = hn::Set(d, 1.0f);
  // t^2 in two parts: the square of 12 bits is exact, and an error of t^2 would be one of the exponential, 100 times larger.
  const V head = hn::BitCast(d, hn::And(hn::BitCast(du, t), hn::Set(du, 0xfffff000u)));
  const V minus_half = hn::Set(d, -0.5f);
  const V exponential =
      ExpOf(d, ReduceExp(d, hn::Mul(hn::Mul(head, head), minus_half), hn::Mul(hn::Mul(hn::Sub(t, head), hn::Add(t, head)), minus_half)));
  const V u = hn::Div(one, hn::MulAdd(hn::Set(d, 0.3f), t, one));
  const V p = Polynomial(d, hn::Sub(u, hn::Set(d, 0x1.08p-1f)), 0x1.d14dc2p-3f, 0x1.5c4ddcp-2f, 0x1.6d3546p-2f, 0x1.ca26bcp-3f, 0x1.76b012p-6f,
                         -0x1.4ae1d4p-4f, -0x1.09745ep-5f, 0x1.38da7p-5f, 0x1.1219ccp-6f, -0x1.51e4b4p-6f);
  const V tail = hn::Mul(hn::Mul(u, p), exponential);
  return {hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail)), exponential};
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
