// elementwise.h - what the element-wise kernels compute, one element, in the obvious way: f64's and the integers' path, and the oracle.
//
// T is float, double or, where the function is analytic, std::complex<double>: a complex step (Squire & Trapp, SIAM Review 1998) then gives
// its derivative to full precision. Comparisons look at the real part.
#pragma once

#include <cmath>
#include <complex>
#include <limits>
#include <type_traits>

#include "kernels/kernels.h"
#include "kernels/ref/analytic.h"

namespace mezzo::kernels::ref {

inline constexpr double kSqrtHalf = 0.70710678118654752440, kInvSqrtTwoPi = 0.39894228040143267794;
/// gelu_tanh(x) = x sigmoid(z), z = 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline constexpr double kGeluLinear = 1.59576912160573071176, kGeluCubic = kGeluLinear * 0.044715;

/// Phi, the distribution function of the standard normal.
template <class T> T normal_cdf(T x) { return std::erfc(x * T(-kSqrtHalf)) / 2; }
/// Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...) (Abramowitz & Stegun 26.2.11): no cancellation near the real axis for x > -1.
template <class T> std::complex<T> normal_cdf(std::complex<T> x) {
  std::complex<T> term = x, sum = x;
  for (int k = 3; std::abs(term) > std::numeric_limits<T>::epsilon() * std::abs(sum) / 4 && k < 2000; k += 2) sum += term *= x * x / T(k);
  return T(0.5) + T(kInvSqrtTwoPi) * std::exp(x * x / T(-2)) * sum;
}

template <class T> T sigmoid(T x) {
  if (real_part(x) < 0) {
    const T e = std::exp(x);
    return e / (T(1) + e);
  }
  return T(1) / (T(1) + std::exp(-x));
}
template <class T> T log1p(T x) { return std::log1p(x); }
template <class T> std::complex<T> log1p(std::complex<T> x) { return std::log(T(1) + x); }

/// The derivative's factor x at an infinity: there f' is its limit, not Inf times 0.
template <class T> T finite(T x) {
  constexpr T kFar = 1000;  // every tail used here has vanished
  return x > kFar ? kFar : x < -kFar ? -kFar : x;
}

template <Unary op, class T> T unary(T x) {
  if constexpr (op == Unary::neg) return -x;
  else if constexpr (op == Unary::abs) return real_part(x) < 0 ? -x : real_part(x) == 0 ? T(0) : x;
  else if constexpr (op == Unary::exp) return std::exp(x);
  else if constexpr (op == Unary::log) return std::log(x);
  else if constexpr (op == Unary::sqrt) return std::sqrt(x);
  else if constexpr (op == Unary::rsqrt) return T(1) / std::sqrt(x);
  else if constexpr (op == Unary::tanh) return std::tanh(x);
  else if constexpr (op == Unary::sigmoid) return sigmoid(x);
  else if constexpr (op == Unary::relu) return real_part(x) < 0 ? T(0) : x;
  else if constexpr (op == Unary::silu) return x * sigmoid(x);
  else if constexpr (op == Unary::gelu) return x * normal_cdf(x);
  else if constexpr (op == Unary::gelu_tanh) return x * sigmoid(x * (T(kGeluLinear) + T(kGeluCubic) * x * x));
  else if constexpr (op == Unary::softplus) return real_part(x) > 0 ? x + log1p(std::exp(-x)) : log1p(std::exp(x));
  else if constexpr (op == Unary::sin) return std::sin(x);
  else return std::cos(x);
}

/// dx = dy f'(x); s is f(x) for the ops whose derivative is taken from the output, else x.
template <Unary op, class T> T unary_backward(T s, T dy) {
  if constexpr (op == Unary::neg) return -dy;
  else if constexpr (op == Unary::abs) return dy * (s > 0 ? T(1) : s < 0 ? T(-1) : s);  // 0 at 0, NaN at NaN
  else if constexpr (op == Unary::exp) return dy * s;
  else if constexpr (op == Unary::log) return dy / s;
  else if constexpr (op == Unary::sqrt) return dy / (T(2) * s);
  else if constexpr (op == Unary::rsqrt) return dy * s * s * (T(-0.5) * s);
  else if constexpr (op == Unary::tanh) return dy * ((T(1) - s) * (T(1) + s));
  else if constexpr (op == Unary::sigmoid) return dy * (s * (T(1) - s));
  else if constexpr (op == Unary::relu) return s <= 0 ? T(0) : dy;
  else if constexpr (op == Unary::silu) return dy * (sigmoid(s) * (T(1) + finite(s) * sigmoid(-s)));
  else if constexpr (op == Unary::gelu) return dy * (normal_cdf(s) + finite(s) * T(kInvSqrtTwoPi) * std::exp(finite(s) * finite(s) / T(-2)));
  else if constexpr (op == Unary::gelu_tanh) {
    const T x = finite(s), z = x * (T(kGeluLinear) + T(kGeluCubic) * x * x);
    return dy * (sigmoid(z) * (T(1) + x * sigmoid(-z) * (T(kGeluLinear) + T(3 * kGeluCubic) * x * x)));
  } else if constexpr (op == Unary::softplus) return dy * sigmoid(s);
  else if constexpr (op == Unary::sin) return dy * std::cos(s);
  else return -dy * std::sin(s);
}

/// maximum and minimum: NaN if either is.
template <Binary op, class T> T binary(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    static_assert(op != Binary::div && op != Binary::pow);
    using U = std::make_unsigned_t<T>;  // wraps instead of overflowing
    using Wrap = std::conditional_t<sizeof(U) < 4, unsigned, U>;
    if constexpr (op == Binary::add) return static_cast<T>(Wrap(U(a)) + Wrap(U(b)));
    else if constexpr (op == Binary::sub) return static_cast<T>(Wrap(U(a)) - Wrap(U(b)));
    else if constexpr (op == Binary::mul) return static_cast<T>(Wrap(U(a)) * Wrap(U(b)));
    else if constexpr (op == Binary::maximum) return a > b ? a : b;
    else return a < b ? a : b;
  } else if constexpr (op == Binary::add) return a + b;
  else if constexpr (op == Binary::sub) return a - b;
  else if constexpr (op == Binary::mul) return a * b;
  else if constexpr (op == Binary::div) return a / b;
  else if constexpr (op == Binary::pow) return std::pow(a, b);
  else if constexpr (op == Binary::maximum) return real_part(a) != real_part(a) || real_part(a) > real_part(b) ? a : b;
  else return real_part(a) != real_part(a) || real_part(a) < real_part(b) ? a : b;
}

template <Compare op, class T> bool compare(T a, T b) {
  if constexpr (op == Compare::eq) return a == b;
  else if constexpr (op == Compare::ne) return a != b;
  else if constexpr (op == Compare::lt) return a < b;
  else if constexpr (op == Compare::le) return a <= b;
  else if constexpr (op == Compare::gt) return a > b;
  else return a >= b;
}

template <class T> T swiglu(T gate, T up) { return unary<Unary::silu>(gate) * up; }

}  // namespace mezzo::kernels::ref
