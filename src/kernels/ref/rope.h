// rope.h - rotary position embedding of one head.
#pragma once

#include <cmath>
#include <cstdint>

namespace mezzo::kernels::ref {

/// y (d) = x (d) with pair i turned by sign * position * inv_freq[i] radians; pairs are (2i, 2i+1) when interleaved, else (i, i + d/2).
template <class T> void rope(const T* x, T* y, const float* inv_freq, std::int64_t position, std::int64_t d, bool interleaved, double sign) {
  for (std::int64_t i = 0; i < d / 2; ++i) {
    const std::int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + d / 2;
    const double angle = sign * static_cast<double>(position) * static_cast<double>(inv_freq[i]);
    const T cos(std::cos(angle)), sin(std::sin(angle)), a = x[first], b = x[second];
    y[first] = a * cos - b * sin;
    y[second] = b * cos + a * sin;
  }
}

}  // namespace mezzo::kernels::ref
