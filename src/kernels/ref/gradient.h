// gradient.h - what one look at a gradient finds, element by element; and how a scale is applied in f32.
#pragma once

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// A scale as two factors that are finite in f32 and normal: a loss scale beyond 2^127 has a reciprocal that f32 flushes, one below 2^-127
/// a reciprocal that overflows and would turn a zero gradient into NaN. The second factor is 1 for every scale that f32 holds.
struct ScaleFactors {
  float first = 1, second = 1;
  explicit ScaleFactors(double scale) {
    const double size = std::abs(scale);
    if (size > FLT_MAX) second = 0x1p127f;
    else if (size < FLT_MIN && size != 0) second = 0x1p-64f;
    first = static_cast<float>(std::clamp(scale / static_cast<double>(second), -static_cast<double>(FLT_MAX), static_cast<double>(FLT_MAX)));
  }
};

/// Statistics of g (n), its elements already rounded as they should be, times scale in T; squares are summed in double.
template <class T> GradStats grad_stats(const T* g, std::int64_t n, T scale) {
  GradStats stats;
  for (std::int64_t i = 0; i < n; ++i) {
    const T x = g[i] * scale;
    stats.sum_squares += static_cast<double>(x) * static_cast<double>(x);
    stats.inf += std::isinf(x);
    stats.nan += std::isnan(x);
    stats.zero += g[i] == 0;
  }
  return stats;
}

}  // namespace mezzo::kernels::ref
