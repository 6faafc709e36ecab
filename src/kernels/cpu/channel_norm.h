// channel_norm.h - what the vector loops of batch and group norm give to, and take from, the code that joins them.
#pragma once

namespace mezzo::kernels {

/// Of some elements: how many, their mean, and the sum of squares around it.
struct Moments {
  double n = 0, mean = 0, squares = 0;

  /// Both together (Chan, Golub, LeVeque, "Algorithms for computing the sample variance", 1983).
  void join(const Moments& o) {
    if (o.n == 0) return;
    const double d = o.mean - mean, all = n + o.n;
    mean += d * (o.n / all);
    squares += o.squares + d * d * (n * o.n / all);
    n = all;
  }
};

/// Of some elements: the sum of dy, and of dy (x - mean).
struct GradSums {
  double dy = 0, dy_x = 0;
};

/// dx = p dy - q (x - mean) - r.
struct GradTerms {
  float p, q, r;
};

}  // namespace mezzo::kernels
