// pool.h - windows of a pooling as its vector loops take them, in both directions.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// For each place along one dimension, the places of the other side that it takes from: [begin, begin + count). `most`: the largest count;
/// `together`: begin rises by one and every count is the same, so vectors of places load vectors.
struct Windows {
  const std::int32_t *begin, *count;
  const float* share;  // of each of the places taken from, or of each place itself: what multiplies it in an average
  std::int64_t n, most;
  bool together;
};

/// Both dimensions: 0 rows, 1 columns.
struct PlaneWindows {
  Windows rows, columns;
};

}  // namespace mezzo::kernels
