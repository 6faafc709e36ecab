// softmax.h - softmax and log_softmax of one row, forward and backward, in the plainest form.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/ref/analytic.h"

namespace mezzo::kernels::ref {

/// Largest element (real part) of x (n); -inf of nothing.
template <class T> auto largest(const T* x, std::int64_t n) {
  auto max = -std::numeric_limits<decltype(real_part(*x))>::infinity();
  for (std::int64_t i = 0; i < n; ++i) max = real_part(x[i]) > max ? real_part(x[i]) : max;
  return max;
}

/// sum of exp(x - max) over x (n).
template <class T, class R> T sum_exp(const T* x, R max, std::int64_t n) {
  using std::exp;
  T sum(0);
  for (std::int64_t i = 0; i < n; ++i) sum += exp(x[i] - max);
  return sum;
}

/// y (c) = softmax or log_softmax of x (c).
template <class T> void softmax(bool log_form, const T* x, T* y, std::int64_t c) {
  using std::exp, std::log;
  const auto max = largest(x, c);
  const T sum = sum_exp(x, max, c);
  const T log_sum = log(sum);
  for (std::int64_t i = 0; i < c; ++i) y[i] = log_form ? (x[i] - max) - log_sum : exp(x[i] - max) / sum;
}

/// dx (c) from y and dy (c): softmax y (dy - sum(dy y)); log_softmax dy - exp(y) sum(dy).
template <class T> void softmax_backward(bool log_form, const T* y, const T* dy, T* dx, std::int64_t c) {
  using std::exp;
  T sum(0);
  for (std::int64_t i = 0; i < c; ++i) sum += log_form ? dy[i] : dy[i] * y[i];
  for (std::int64_t i = 0; i < c; ++i) dx[i] = log_form ? dy[i] - exp(y[i]) * sum : y[i] * (dy[i] - sum);
}

}  // namespace mezzo::kernels::ref
