// pool.h - pooling of planes: windows, and each kernel as its definition says.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// Window i of dimension d: elements [begin, end) of x, and how many elements an average is over.
struct PoolWindow {
  std::int64_t begin, end, size;
};
inline PoolWindow pool_window(const Pool& p, int d, std::int64_t i) {
  if (p.adaptive) {
    const std::int64_t begin = i * p.in[d] / p.out[d], end = ((i + 1) * p.in[d] + p.out[d] - 1) / p.out[d];
    return {begin, end, end - begin};
  }
  const std::int64_t from = i * p.stride[d] - p.padding[d], to = std::min(from + p.kernel[d], p.in[d] + p.padding[d]);
  const std::int64_t begin = std::max<std::int64_t>(from, 0), end = std::min(to, p.in[d]);
  return {begin, end, p.count_include_pad ? to - from : end - begin};
}

/// f(element of x, element of y, 1 / elements averaged) for every element of every window, in the order of y, then of x.
template <class F> void each_in_windows(const Pool& p, F f) {
  for (std::int64_t plane = 0; plane < p.planes; ++plane)
    for (std::int64_t oy = 0; oy < p.out[0]; ++oy)
      for (std::int64_t ox = 0; ox < p.out[1]; ++ox) {
        const PoolWindow wy = pool_window(p, 0, oy), wx = pool_window(p, 1, ox);
        for (std::int64_t y = wy.begin; y < wy.end; ++y)
          for (std::int64_t x = wx.begin; x < wx.end; ++x)
            f((plane * p.in[0] + y) * p.in[1] + x, (plane * p.out[0] + oy) * p.out[1] + ox, 1.0 / static_cast<double>(wy.size * wx.size));
      }
}

/// index may be null.
inline void max_pool(const Pool& p, const double* x, double* y, std::int32_t* index) {
  const std::int64_t n = p.planes * p.out[0] * p.out[1], plane = p.in[0] * p.in[1];
  std::fill_n(y, n, -std::numeric_limits<double>::infinity());
  if (index) std::fill_n(index, n, -1);
  std::int64_t last = -1;
  each_in_windows(p, [&](std::int64_t i, std::int64_t o, double) {
    const bool first = o != last;
    last = o;
    if (!first && !(x[i] > y[o]) && !(std::isnan(x[i]) && !std::isnan(y[o]))) return;
    y[o] = x[i];
    if (index) index[o] = static_cast<std::int32_t>(i % plane);
  });
}

inline void max_pool_backward(const Pool& p, const std::int32_t* index, const double* dy, double* dx) {
  const std::int64_t in = p.in[0] * p.in[1], out = p.out[0] * p.out[1];
  std::fill_n(dx, p.planes * in, 0.0);
  for (std::int64_t o = 0; o < p.planes * out; ++o) dx[o / out * in + index[o]] += dy[o];
}

inline void avg_pool(const Pool& p, const double* x, double* y) {
  std::fill_n(y, p.planes * p.out[0] * p.out[1], 0.0);
  each_in_windows(p, [&](std::int64_t i, std::int64_t o, double share) { y[o] += share * x[i]; });
}

inline void avg_pool_backward(const Pool& p, const double* dy, double* dx) {
  std::fill_n(dx, p.planes * p.in[0] * p.in[1], 0.0);
  each_in_windows(p, [&](std::int64_t i, std::int64_t o, double share) { dx[i] += share * dy[o]; });
}

}  // namespace mezzo::kernels::ref
