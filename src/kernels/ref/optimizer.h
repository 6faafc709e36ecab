// optimizer.h - one element of an optimizer's step, in torch's order of operations; and the numbers of a step that every kernel shares.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// torch.optim.Adam and AdamW (single tensor, no amsgrad): each number computed in double, then rounded to T once.
template <class T> struct Adam {
  T decay, l2, lerp, beta2, square, step, root_bias2, eps;
  bool near_gradient;  // torch's lerp starts from the nearer end
  explicit Adam(const Update& u)
      : decay(static_cast<T>(u.decoupled ? 1 - u.lr * u.weight_decay : 1.0)),
        l2(static_cast<T>(u.decoupled ? 0.0 : u.weight_decay)),
        lerp(static_cast<T>(u.beta1 > 0.5 ? 1 - u.beta1 : -u.beta1)),
        beta2(static_cast<T>(u.beta2)),
        square(static_cast<T>(1 - u.beta2)),
        step(static_cast<T>(-u.lr / u.bias1)),
        root_bias2(static_cast<T>(std::sqrt(u.bias2))),
        eps(static_cast<T>(u.eps)),
        near_gradient(u.beta1 <= 0.5) {}

  void operator()(T g, T& w, T& m, T& v) const {
    w = w * decay;
    if (l2 != 0) g = g + w * l2;
    m = (near_gradient ? g : m) + lerp * (g - m);
    v = v * beta2 + square * g * g;
    w = w + step * m / (std::sqrt(v) / root_bias2 + eps);
  }
};

/// torch.optim.SGD (no dampening).
template <class T> struct Sgd {
  T l2, momentum, step;
  bool nesterov, first;
  explicit Sgd(const Update& u)
      : l2(static_cast<T>(u.weight_decay)), momentum(static_cast<T>(u.momentum)), step(static_cast<T>(-u.lr)), nesterov(u.nesterov), first(u.first) {}

  void operator()(T g, T& w) const {
    if (l2 != 0) g = g + w * l2;
    w = w + step * g;
  }
  void operator()(T g, T& w, T& m) const {
    if (l2 != 0) g = g + w * l2;
    m = first ? g : m * momentum + g;
    w = w + step * (nesterov ? g + m * momentum : m);
  }
};

/// torch.optim.Adagrad; u.lr has decayed already.
template <class T> struct Adagrad {
  T l2, step, eps;
  explicit Adagrad(const Update& u) : l2(static_cast<T>(u.weight_decay)), step(static_cast<T>(-u.lr)), eps(static_cast<T>(u.eps)) {}

  void operator()(T g, T& w, T& m) const {
    if (l2 != 0) g = g + w * l2;
    m = m + g * g;
    w = w + step * g / (std::sqrt(m) + eps);
  }
};

/// Lion (Chen et al., arXiv 2302.06675, program 1). The sign of 0 is 0, that of a NaN NaN.
template <class T> struct Lion {
  T decay, beta1, rest1, beta2, rest2, step;
  explicit Lion(const Update& u)
      : decay(static_cast<T>(1 - u.lr * u.weight_decay)),
        beta1(static_cast<T>(u.beta1)),
        rest1(static_cast<T>(1 - u.beta1)),
        beta2(static_cast<T>(u.beta2)),
        rest2(static_cast<T>(1 - u.beta2)),
        step(static_cast<T>(-u.lr)) {}

  void operator()(T g, T& w, T& m) const {
    const T c = m * beta1 + g * rest1;
    w = w * decay + step * (c == 0 || std::isnan(c) ? c : std::copysign(T(1), c));
    m = m * beta2 + g * rest2;
  }
};

/// torch.optim.Adafactor's last part: the step of an element whose second moment is estimated as `var`.
template <class T> struct Adafactor {
  T decay, step, least;  // least: of the estimate
  explicit Adafactor(const Update& u)
      : decay(static_cast<T>(1 - u.weight_decay)), step(static_cast<T>(-u.lr)), least(static_cast<T>(u.eps * u.eps)) {}

  T scaled(T g, T var) const { return g / std::sqrt(std::max(var, least)); }
  void operator()(T g, T& w, T var) const { w = w * decay + step * scaled(g, var); }
};

/// The estimate that adafactor makes of element i's second moment.
template <class T> T second_moment(const Update& u, const T* m, const T* v, const T* factor, std::int64_t i) {
  return u.rows == 0 ? m[i] : factor[i / u.columns] * v[i / (u.rows * u.columns) * u.columns + i % u.columns];
}

/// kernels::adafactor_moments for w and g (n), g scaled already; m, v, factor as Update has them.
template <class T> void adafactor_moments(const Update& u, const T* w, const T* g, T* m, T* v, T* factor, double sums[2]) {
  const Adafactor<T> rule(u);
  const T lerp = static_cast<T>(u.beta2);
  sums[0] = sums[1] = 0;
  for (std::int64_t i = 0; i < u.n; ++i) sums[0] += static_cast<double>(w[i]) * static_cast<double>(w[i]);
  const auto add = [&](T x) { sums[1] += static_cast<double>(x) * static_cast<double>(x); };
  if (u.rows == 0) {
    for (std::int64_t i = 0; i < u.n; ++i) {
      m[i] = m[i] + lerp * (g[i] * g[i] - m[i]);
      add(rule.scaled(g[i], m[i]));
    }
    return;
  }
  const std::int64_t rows = u.rows, columns = u.columns, size = rows * columns;
  for (std::int64_t k = 0; k < u.n / size; ++k, w += size, g += size, m += rows, v += columns, factor += rows) {
    double total = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t c = 0; c < columns; ++c) sum += static_cast<double>(g[r * columns + c]) * static_cast<double>(g[r * columns + c]);
      m[r] = m[r] + lerp * (static_cast<T>(sum / static_cast<double>(columns)) - m[r]);
      total += static_cast<double>(m[r]);
    }
    for (std::int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (std::int64_t r = 0; r < rows; ++r) sum += static_cast<double>(g[r * columns + c]) * static_cast<double>(g[r * columns + c]);
      v[c] = v[c] + lerp * (static_cast<T>(sum / static_cast<double>(rows)) - v[c]);
    }
    const double mean = std::max(total / static_cast<double>(rows), u.eps);
    for (std::int64_t r = 0; r < rows; ++r) {
      factor[r] = static_cast<T>(static_cast<double>(m[r]) / mean);
      for (std::int64_t c = 0; c < columns; ++c) add(rule.scaled(g[r * columns + c], factor[r] * v[c]));
    }
  }
}

}  // namespace mezzo::kernels::ref
