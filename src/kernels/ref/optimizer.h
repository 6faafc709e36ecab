// optimizer.h - one element of an optimizer's step, in torch's order of operations; and the numbers of a step that every kernel shares.
#pragma once

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

}  // namespace mezzo::kernels::ref
