// f64.h - one matrix product in f64.
#pragma once

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// C = alpha op(A) op(B) + beta C + bias + residual, all f64 (bias f32 or f64); batch is not looked at. For gradient checks and exact work:
/// blocked and threaded, but without kernels of its own for each instruction set.
void f64_gemm(Queue&, int threads, const Gemm&, const double* a, const double* b, double* c);

}  // namespace mezzo::kernels
