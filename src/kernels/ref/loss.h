// loss.h - cross-entropy of one row of logits, forward and backward.
#pragma once

#include <cmath>
#include <cstdint>

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

}  // namespace mezzo::kernels::ref
