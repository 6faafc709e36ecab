// unary-inl.h - the unary functions and their derivatives on vectors of f32; ref/elementwise.h has the same formulas one element at a time.
#if defined(MEZZO_KERNELS_CPU_UNARY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_UNARY_INL_H_
#undef MEZZO_KERNELS_CPU_UNARY_INL_H_
#else
#define MEZZO_KERNELS_CPU_UNARY_INL_H_
#endif

#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/math64-inl.h"
#include "kernels/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// z of gelu_tanh(x) = x sigmoid(z): 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline constexpr float kGeluLinear = 1.5957691216f, kGeluCubic = 0.0713548163f;
template <class D, class V> HWY_INLINE V GeluArgument(D d, V x) {
  return hn::Mul(x, hn::MulAdd(hn::Mul(x, x), hn::Set(d, kGeluCubic), hn::Set(d, kGeluLinear)));
}

template <class D, class V> HWY_INLINE V Silu(D d, V x) { return hn::Mul(x, Sigmoid(d, x)); }

template <Unary op, class D, class V> HWY_INLINE V Evaluate(D d, V x) {
  if constexpr (op == Unary::neg) return hn::Neg(x);
  else if constexpr (op == Unary::abs) return hn::Abs(x);
  else if constexpr (op == Unary::exp) return Exp(d, x);
  else if constexpr (op == Unary::log) return Log(d, x);
  else if constexpr (op == Unary::sqrt) return hn::Sqrt(x);
  else if constexpr (op == Unary::rsqrt) return hn::Div(hn::Set(d, 1.0f), hn::Sqrt(x));
  else if constexpr (op == Unary::tanh) return Tanh(d, x);
  else if constexpr (op == Unary::sigmoid) return Sigmoid(d, x);
  else if constexpr (op == Unary::relu) return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  else if constexpr (op == Unary::silu) return Silu(d, x);
  else if constexpr (op == Unary::gelu) return hn::Mul(x, NormalOf(d, x).cdf);
  else if constexpr (op == Unary::gelu_tanh) return hn::Mul(x, Sigmoid(d, GeluArgument(d, x)));
  else if constexpr (op == Unary::softplus) return Softplus(d, x);
  else if constexpr (op == Unary::sin) return Sin(d, x);
  else return Cos(d, x);
}

/// silu'(x) = s + x s (1 - s), s = sigmoid(x).
template <class D, class V> HWY_INLINE V SiluSlope(D d, V x, Logistic<D> p) {
  const V near = Clamp(d, x, -200.0f, 200.0f);  // so that Inf does not meet 0
  return hn::Mul(p.s, hn::MulAdd(near, p.rest, hn::Set(d, 1.0f)));
}

/// dy f'; s is the function's output or input, as derivative_from_output says.
template <Unary op, class D, class V> HWY_INLINE V Differentiate(D d, V s, V dy) {
  const V one = hn::Set(d, 1.0f), zero = hn::Zero(d);
  if constexpr (op == Unary::neg) return hn::Neg(dy);
  else if constexpr (op == Unary::abs) {
    const V sign = hn::IfThenElse(hn::Gt(s, zero), one, hn::IfThenElse(hn::Lt(s, zero), hn::Neg(one), s));
    return hn::Mul(dy, sign);
  } else if constexpr (op == Unary::exp) return hn::Mul(dy, s);
  else if constexpr (op == Unary::log) return hn::Div(dy, s);
  else if constexpr (op == Unary::sqrt) return hn::Div(dy, hn::Add(s, s));
  else if constexpr (op == Unary::rsqrt) return hn::Mul(hn::Mul(hn::Mul(dy, s), s), hn::Mul(hn::Set(d, -0.5f), s));  // s^3 alone would overflow
  else if constexpr (op == Unary::tanh) return hn::Mul(dy, hn::Mul(hn::Sub(one, s), hn::Add(one, s)));
  else if constexpr (op == Unary::sigmoid) return hn::Mul(dy, hn::Mul(s, hn::Sub(one, s)));
  else if constexpr (op == Unary::relu) return hn::IfThenElse(hn::Le(s, zero), zero, dy);
  else if constexpr (op == Unary::silu) return hn::Mul(dy, SiluSlope(d, s, LogisticOf(d, s)));
  else if constexpr (op == Unary::gelu) {
    const auto normal = NormalOf(d, s);
    return hn::Mul(dy, hn::MulAdd(hn::Mul(Clamp(d, s, -20.0f, 20.0f), hn::Set(d, 0.3989422804f)), normal.exponential, normal.cdf));
  } else if constexpr (op == Unary::gelu_tanh) {
    // sigmoid(z) + x sigmoid(z) (1 - sigmoid(z)) z'
    const V x = Clamp(d, s, -20.0f, 20.0f);
    const auto p = LogisticOf(d, GeluArgument(d, x));
    const V slope = hn::MulAdd(hn::Mul(x, x), hn::Set(d, 3 * kGeluCubic), hn::Set(d, kGeluLinear));
    return hn::Mul(dy, hn::Mul(p.s, hn::MulAdd(hn::Mul(x, slope), p.rest, one)));
  } else if constexpr (op == Unary::softplus) return hn::Mul(dy, Sigmoid(d, s));
  else if constexpr (op == Unary::sin) return hn::Mul(dy, Cos(d, s));
  else return hn::Neg(hn::Mul(dy, Sin(d, s)));
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
