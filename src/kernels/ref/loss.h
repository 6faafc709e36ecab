// loss.h - cross-entropy of one row of logits, forward and backward.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/ref/softmax.h"

namespace mezzo::kernels::ref {

template <class T> struct CrossEntropy { T loss, lse; };

/// lse = log(sum(exp(x))) of x (v), and loss = lse - x[target] without the cancellation of that form.
template <class T> CrossEntropy<T> cross_entropy(const T* x, std::int64_t target, std::int64_t v) {
  using std::log;
  const auto max = largest(x, v);
  const T log_sum = log(sum_exp(x, max, v));
  return {log_sum - (x[target] - max), log_sum + max};
}

/// dx (v) = (exp(x - lse) - onehot(target)) scale; dx == x allowed.
template <class T> void cross_entropy_backward(const T* x, std::int64_t target, T lse, T scale, T* dx, std::int64_t v) {
  using std::exp;
  for (std::int64_t i = 0; i < v; ++i) dx[i] = (exp(x[i] - lse) - (i == target ? T(1) : T(0))) * scale;
}

}  // namespace mezzo::kernels::ref
