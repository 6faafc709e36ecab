// block_linear.h - a linear layer whose frozen weight stays in a file's quantised blocks.
#pragma once

#include <memory>

#include <mezzo/tensor.h>

#include "kernels/blocks.h"
#include "ops/product.h"

namespace mezzo {

/// A matrix (rows, cols) in blocks that lie elsewhere, in a mapped file or in memory of its own; `owner` keeps them there.
struct BlockMatrix {
  kernels::Format format = kernels::Format::q8_0;
  const std::byte* blocks = nullptr;
  std::int64_t rows = 0, cols = 0;
  std::shared_ptr<const void> owner;
  std::int64_t row_bytes() const { return cols / kernels::facts(format).elements * kernels::facts(format).bytes; }
};

/// residual + x w^T + b + joined.x joined.w^T with w in blocks, unpacked a few rows at a time into the dtype of the region (or x's); all but x and w
/// may be undefined. The weight has no gradient; all others have. Storage T, accumulation f32, one rounding on store.
Tensor block_linear(const Tensor& x, const std::shared_ptr<const BlockMatrix>& w, const Tensor& b, const Tensor& residual, const Joined& joined = {});

/// Rows of a table in blocks, as embedding() gives them of one in `dtype`; without a gradient.
Tensor block_embedding(const Tensor& ids, const BlockMatrix& table, Dtype dtype);

/// All of it, in `dtype`.
Tensor unpacked(const BlockMatrix&, Dtype);

}  // namespace mezzo
