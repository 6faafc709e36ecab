// index.h - gathers and scattered sums along the middle of (outer, n, inner), and smallest and largest indices, in the obvious way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/ref/convert.h"
#include "kernels/ref/elementwise.h"

namespace mezzo::kernels::ref {

/// Elements [begin, end) of y (outer, n, inner) = x[o, index[o, k, i], i], x (outer, from_n, inner).
template <class T, class I>
void gather(const T* x, const I* index, T* y, std::int64_t from_n, std::int64_t n, std::int64_t inner, std::int64_t begin, std::int64_t end) {
  const std::int64_t plane = n * inner;
  for (std::int64_t i = begin; i < end;) {
    const T* from = x + i / plane * from_n * inner;
    const std::int64_t stop = std::min(end, (i / plane + 1) * plane);
    for (std::int64_t column = i % inner; i < stop; ++i) {
      y[i] = from[index[i] * inner + column];
      if (++column == inner) column = 0;
    }
  }
}

/// y[index[k, i], i] += src[k, i] for columns [begin, end) of one plane and destinations [first, last); y (to_n, inner), src (n, inner).
template <class A, class T, class I> void scatter_add(const T* src, const I* index, A* y, std::int64_t n, std::int64_t inner, std::int64_t begin,
                                                      std::int64_t end, std::int64_t first, std::int64_t last) {
  for (std::int64_t k = 0; k < n; ++k) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t to = index[k * inner + i];
      if (first <= to && to < last) y[to * inner + i] = binary<Binary::add>(y[to * inner + i], cast<A>(src[k * inner + i]));
    }
  }
}

struct Bounds {
  std::int64_t low = std::numeric_limits<std::int64_t>::max(), high = std::numeric_limits<std::int64_t>::min();
};

template <class I> Bounds index_bounds(const I* index, std::int64_t n) {
  if (n == 0) return {};
  I low = index[0], high = index[0];
  for (std::int64_t i = 1; i < n; ++i) {
    low = std::min(low, index[i]);
    high = std::max(high, index[i]);
  }
  return {low, high};
}

}  // namespace mezzo::kernels::ref
