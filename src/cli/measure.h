// measure.h - what this machine does, measured now: products a second in each format, bytes of memory a second.
#pragma once

#include <cstdint>

#include <mezzo/dtype.h>

#include "core/allocator.h"

namespace mezzo::cli {

/// C (m, n; `c`) = op(A) op(B) of dtype `a`; a layer's forward has B stored (n, k).
struct ProductShape {
  std::int64_t m, n, k;
  Dtype a = f32, c = f32;
  bool trans_a = false, trans_b = true;
};

struct Timing {
  double fastest, median;  ///< seconds
};

/// Times products, one shape after the other.
class ProductClock {
 public:
  /// Where B and C are: in the caches, as far as they fit; or in memory, somewhere else each time, as the weights, gradients and activations of a
  /// model are that no cache holds. (A is what the op before has just written.)
  enum class Operands { cached, far };
  explicit ProductClock(Operands);
  /// Of the runs that fit into `budget` seconds (three at least), after one that warms up.
  Timing time(const ProductShape&, double budget);

 private:
  std::int64_t spread_;  // bytes over which B and C are spread
  Block a_, b_, c_;
};

/// The best rate of products of `dtype` whose operands stay in the caches, 2 m n k floating-point operations each, in GFLOP/s.
double peak_gflops(Dtype dtype, double budget);

struct Bandwidth {
  double read, copy;
};  // GB/s; a copy's bytes are counted twice, read and written
/// Of memory beyond the caches, with all threads.
Bandwidth memory_bandwidth(double budget);

}  // namespace mezzo::cli
