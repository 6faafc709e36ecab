// stream.h - products of a few rows with a matrix that lies row by row along the other side, and is read once as it is.
#pragma once

#include "kernels/gemm/tile.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

inline constexpr std::int64_t kStreamRows = 48;  // of the small operand, at most

/// Which side of C is short: `rows`: op(A) has few rows, and B (k, n) is streamed. `cols`: op(B) has few columns, and A, stored (k, m), is streamed:
/// C is computed as its transpose.
enum class Short { rows, cols };

/// Whether stream_gemm() takes it: the streamed operand's rows are contiguous, no alpha, bias or residual, one product.
bool is_streamed(const Gemm&, Short);
/// C = op(A) op(B) + beta C with the arithmetic of `tiles`, which are f32's or bf16's. Each element is summed in the order of k, in pieces that the
/// sizes alone decide: the same bits for any number of threads.
void stream_gemm(Queue&, const Tiles& tiles, const Gemm&, Short, const void* a, const void* b, void* c);

}  // namespace mezzo::kernels
