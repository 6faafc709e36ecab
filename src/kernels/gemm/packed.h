// packed.h - one matrix product by packed panels and tiles.
#pragma once

#include "kernels/gemm/tile.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

/// C = alpha op(A) op(B) + beta C + bias + residual for one product (batch is not looked at; m, n > 0) with the arithmetic of `tiles`,
/// cut for `threads` threads. The bits of C do not depend on their number: each element is summed in one order.
void packed_gemm(Queue&, const Tiles& tiles, int threads, const Gemm&, const void* a, const void* b, void* c);

/// Pieces that k is cut into, each summed by itself, so that threads share the packing of a long sum into a small C; 1: one sum. A function of the
/// sizes only: the bits do not hang on the number of threads.
std::int64_t packed_pieces(const Gemm&);

}  // namespace mezzo::kernels
