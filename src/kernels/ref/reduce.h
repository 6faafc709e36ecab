// reduce.h - reductions and running sums in the obvious order, but pairwise: f64's and the integers' path, and the oracle.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/kernels.h"
#include "kernels/ref/convert.h"

namespace mezzo::kernels::ref {

/// What sums of T are taken in.
template <class T> using Accumulator =
    std::conditional_t<std::is_integral_v<T>, std::int64_t, std::conditional_t<std::is_same_v<T, double>, double, float>>;

/// The value of reducing nothing.
template <Reduce op, class A> constexpr A identity() {
  if constexpr (op == Reduce::prod) return A(1);
  else if constexpr (op == Reduce::amax) return std::is_integral_v<A> ? std::numeric_limits<A>::lowest() : -std::numeric_limits<A>::infinity();
  else return A(0);
}

/// Two partial results; integers wrap.
template <Reduce op, class A> A combine(A a, A b) {
  if constexpr (op == Reduce::amax) return a != a || a > b ? a : b;
  else if constexpr (std::is_integral_v<A>) {
    const auto u = static_cast<std::uint64_t>(a), v = static_cast<std::uint64_t>(b);
    return static_cast<A>(op == Reduce::prod ? u * v : u + v);
  } else if constexpr (op == Reduce::prod) return a * b;
  else return a + b;
}

/// One element's part.
template <Reduce op, class A> A term(A x) {
  if constexpr (op == Reduce::sum_abs && std::is_integral_v<A>) return x < 0 ? static_cast<A>(0 - static_cast<std::uint64_t>(x)) : x;
  else if constexpr (op == Reduce::sum_abs) return std::abs(x);
  else if constexpr (op == Reduce::sum_squares) return combine<Reduce::prod>(x, x);
  else return x;
}

/// n elements `stride` apart.
template <Reduce op, class A, class T> A reduce(const T* x, std::int64_t n, std::int64_t stride) {
  constexpr std::int64_t kRun = 128;
  if (n > kRun) return combine<op>(reduce<op, A>(x, n / 2, stride), reduce<op, A>(x + n / 2 * stride, n - n / 2, stride));
  A sum = identity<op, A>();
  for (std::int64_t i = 0; i < n; ++i) sum = combine<op>(sum, term<op>(cast<A>(x[i * stride])));
  return sum;
}

/// y[k stride] = x[0] + ... + x[k stride].
template <class To, class T> void cumsum(const T* x, To* y, std::int64_t n, std::int64_t stride, bool reverse) {
  using A = Accumulator<T>;
  A sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t k = (reverse ? n - 1 - i : i) * stride;
    sum = combine<Reduce::sum>(sum, cast<A>(x[k]));
    y[k] = cast<To>(sum);
  }
}

}  // namespace mezzo::kernels::ref
