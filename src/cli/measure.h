// measure.h - what this machine does, measured now: products a second in each format, bytes of memory a second.
#pragma once

#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::cli {

/// C (m, n; `c`) = op(A) op(B) of dtype `a`; a layer's forward has B stored (n, k).
struct ProductShape {
  std::int64_t m, n, k;
  Dtype a = f32, c = f32;
  bool trans_a = false, trans_b = true;
};
/// Seconds that one such product takes: the fastest of those that fit into `budget` seconds, after one that warms up.
double product_seconds(const ProductShape&, double budget);

/// The best rate of products of `dtype` whose operands stay in the caches, 2 m n k floating-point operations each, in GFLOP/s.
double peak_gflops(Dtype dtype, double budget);

struct Bandwidth {
  double read, copy;
};  // GB/s; a copy's bytes are counted twice, read and written
/// Of memory beyond the caches, with all threads.
Bandwidth memory_bandwidth(double budget);

}  // namespace mezzo::cli
