// attention_rows.h - the row-wise work of attention that is the same for every engine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_engine.h"

namespace mezzo::kernels::flash {

/// to (rows, d) = from (rows; ld apart) * factor, or * factors[row] where that is not null; rounded once.
void store_rows(const float* from, std::ptrdiff_t ld, const float* factors, float factor, const MutableRows& to);

/// dots[row] = sum(a * b) along d, in f32.
void dot_rows(const Rows& a, const Rows& b, float* dots);

/// Of kQueries rows, from running maxima (log2 units) and sums: factors = 1 / sum, lse = ln of the sum of exp(score). A row whose keys are all
/// hidden or -inf (sum 0) gives NaN and -inf.
void finish_rows(const float* top, const float* sum, float* factors, float* lse);

/// A patch of a mask, its strides in elements.
struct MaskPatch {
  Dtype dtype;  ///< boolean (not 0 keeps) or f32 (added to the scores, natural units)
  const void* p;
  std::int64_t stride_row, stride_key;  ///< 0: broadcast; stride_key is 0 or 1
};
/// bias (rows, kStride) for keys [0, keys) and on to a whole vector. False if it hides every key from every row.
bool fill_bias(const MaskPatch&, int rows, int keys, float* bias);

/// A patch of the dropout mask of (seed, offset): element (row, key) is draw first + row * stride + key.
struct DropoutPatch {
  double p;
  std::uint64_t seed, offset;
  std::int64_t first, stride;
};
/// keep (rows, kStride) = 0 or 1 / (1 - p), for the keys that each row of the block sees and on to a whole vector.
void fill_keep(const DropoutPatch&, const QueriesByKeys&, float* keep);

}  // namespace mezzo::kernels::flash
