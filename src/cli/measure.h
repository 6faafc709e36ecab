// measure.h - what this machine does, measured now: products a second in each format, bytes of memory a second.
#pragma once

#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::cli {

/// A product as a layer's: C (m, n) = A (m, k) B, B stored (n, k); `dtype` in and out.
struct ProductShape {
  std::int64_t m, n, k;
};
/// Seconds that one such product takes: the fastest of those that fit into `budget` seconds, after one that warms up.
double product_seconds(Dtype dtype, ProductShape, double budget);

/// The best rate of products of `dtype` whose operands stay in the caches, 2 m n k floating-point operations each, in GFLOP/s.
double peak_gflops(Dtype dtype, double budget);

struct Bandwidth {
  double read, copy;
};  // GB/s; a copy's bytes are counted twice, read and written
/// Of memory beyond the caches, with all threads.
Bandwidth memory_bandwidth(double budget);

}  // namespace mezzo::cli
