// packed.h - one matrix product by packed panels and tiles.
#pragma once

#include "kernels/gemm/tile.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

/// C = alpha op(A) op(B) + beta C + bias + residual for one product (batch is not looked at; m, n > 0) with the arithmetic of `tiles`,
/// cut for `threads` threads. The bits of C do not depend on their number: each element is summed in one order.
void packed_gemm(Queue&, const Tiles& tiles, int threads, const Gemm&, const void* a, const void* b, void* c);

}  // namespace mezzo::kernels
