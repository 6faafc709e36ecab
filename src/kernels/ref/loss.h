// loss.h - cross-entropy of one row of logits, and the losses of one element and its target; forward and backward.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/ref/elementwise.h"
#include "kernels/ref/softmax.h"

namespace mezzo::kernels::ref {

template <class T> struct CrossEntropy { T loss, lse; };

/// lse = log(sum(exp(x))) of x (v), and loss = lse - (1 - s) x[target] - s mean(x) without the cancellation of that form.
template <class T> CrossEntropy<T> cross_entropy(const T* x, std::int64_t target, std::int64_t v, double s = 0) {
  using std::log;
  const auto max = largest(x, v);
  const T log_sum = log(sum_exp(x, max, v));
  T picked = T(1 - s) * (x[target] - max);
  for (std::int64_t i = 0; s != 0 && i < v; ++i) picked += T(s / static_cast<double>(v)) * (x[i] - max);
  return {log_sum - picked, log_sum + max};
}

/// dx (v) = (exp(x - lse) - (1 - s) onehot(target) - s / v) scale; dx == x allowed.
template <class T> void cross_entropy_backward(const T* x, std::int64_t target, T lse, T scale, T* dx, std::int64_t v, double s = 0) {
  using std::exp;
  for (std::int64_t i = 0; i < v; ++i) dx[i] = (exp(x[i] - lse) - T((i == target ? 1 - s : 0) + s / static_cast<double>(v))) * scale;
}

/// Logarithms of binary are held at this: a certain and wrong answer costs 100.
inline constexpr double kLeastLog = -100;
template <class T> T held(T log) { return log < T(kLeastLog) ? T(kLeastLog) : log; }  // a NaN stays

/// f(x, t), as kernels.h defines it.
template <Loss loss, class T> T element_loss(T x, T t, T beta) {
  const T d = x - t, size = std::abs(d);
  if constexpr (loss == Loss::squared) return d * d;
  else if constexpr (loss == Loss::absolute) return size;
  else if constexpr (loss == Loss::smooth_l1) return size < beta ? d * d / (2 * beta) : size - beta / 2;
  else if constexpr (loss == Loss::huber) return size < beta ? d * d / 2 : beta * (size - beta / 2);
  else if constexpr (loss == Loss::kl) return t == 0 ? T(0) : t * (std::log(t) - x);
  else if constexpr (loss == Loss::kl_log) return std::exp(t) * (t - x);
  else if constexpr (loss == Loss::binary) return -(t * held(std::log(x)) + (1 - t) * held(std::log1p(-x)));
  else return unary<Unary::softplus>(-std::abs(x)) + (x > 0 ? 1 - t : -t) * x;
}

template <class T> struct LossSlopes { T x, t; };
/// df/dx and df/dt.
template <Loss loss, class T> LossSlopes<T> element_loss_backward(T x, T t, T beta) {
  const T d = x - t, size = std::abs(d), sign = d > 0 ? T(1) : d < 0 ? T(-1) : d;
  if constexpr (loss == Loss::squared) return {2 * d, -2 * d};
  else if constexpr (loss == Loss::absolute) return {sign, -sign};
  else if constexpr (loss == Loss::smooth_l1) return size < beta ? LossSlopes<T>{d / beta, -d / beta} : LossSlopes<T>{sign, -sign};
  else if constexpr (loss == Loss::huber) return size < beta ? LossSlopes<T>{d, -d} : LossSlopes<T>{sign * beta, -sign * beta};
  else if constexpr (loss == Loss::kl) return {-t, std::log(t) + 1 - x};
  else if constexpr (loss == Loss::kl_log) return {-std::exp(t), std::exp(t) * (t - x + 1)};
  else if constexpr (loss == Loss::binary) {
    return {(x - t) / std::max(x * (1 - x), T(1e-12)), held(std::log1p(-x)) - held(std::log(x))};
  } else return {sigmoid(x) * (1 - t) - t * sigmoid(-x), -x};
}

}  // namespace mezzo::kernels::ref
