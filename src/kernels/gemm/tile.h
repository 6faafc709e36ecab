// tile.h - the inner kernels of the packed matrix product, one table for each instruction set and arithmetic.
//
// An operand is packed into panels: `width` rows of op(A) (or columns of op(B)) side by side, step after step along k, in units of 32 bits:
// one f32, or a pair of bf16 neighbours along k for the bf16 dot. A tile of C is the product of one panel of A and one of B.
#pragma once

#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::kernels {

/// An operand as (count, k): element (i, p) stands at x[i * ld + p], or at x[p * ld + i] when k is not contiguous.
struct Operand {
  const void* x = nullptr;
  Dtype dtype = f32;
  std::int64_t ld = 0;
  bool k_contiguous = true;
};

/// How a tile of sums becomes a piece of C: c = alpha sums + add + beta c + bias + residual, in f32, rounded once.
struct Finish {
  float alpha = 1, beta = 0;
  const float* add = nullptr;  ///< (rows, cols), ld_add: sums of earlier slices of k
  std::int64_t ld_add = 0;
  const float* bias = nullptr;     ///< (cols)
  const void* residual = nullptr;  ///< (rows, cols), C's dtype and leading dimension
  void* c = nullptr;               ///< (rows, cols); not read when beta is 0
  std::int64_t ldc = 0;
  const void* next = nullptr;  ///< the tile of C that comes after this one: fetched into the cache while the sums are made
};

struct Tiles {
  int rows, cols;  ///< of a whole tile
  int unit;        ///< elements of k in a 32-bit unit: 1 (f32) or 2 (bf16 pairs)
  /// Panels [begin, end) of (count, k) into out[panel - begin][unit of k][width]; the width is `rows` for A, `cols` for B. From one panel to the next
  /// are `units` units, at least those of k. Places past `count` are left undefined: the sums made of them are never stored.
  void (*pack_a)(const Operand&, std::int64_t count, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t units, void* out);
  void (*pack_b)(const Operand&, std::int64_t count, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t units, void* out);
  /// The first m <= rows rows and n <= cols columns of the product of a panel of A and one of B, `units` long, into C.
  void (*tile)(Dtype c, int m, int n, std::int64_t units, const void* a, const void* b, const Finish&);
  /// c (rows, cols), f32, = the sum of `pieces` matrices of that size, one after the other in memory, + beta c, which is not read when beta is 0.
  void (*join)(std::int64_t rows, std::int64_t cols, const float* sums, int pieces, float beta, float* c, std::int64_t ldc);
};

/// f32 arithmetic on f32, or on 16-bit operands that packing widens.
const Tiles& f32_tiles();
/// bf16 pairs with VDPBF16PS; null where active_isa() has none.
const Tiles* bf16_tiles();

}  // namespace mezzo::kernels
