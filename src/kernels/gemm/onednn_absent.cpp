// onednn_absent.cpp - builds without oneDNN: the packed product computes everything. oneDNN runs on OpenMP, which the thread sanitizer
// cannot see into, and which must not meet a second OpenMP run time.
#include "kernels/gemm/onednn.h"

namespace mezzo::kernels {

bool onednn_sgemm(const Gemm&, const void*, const void*, void*) { return false; }
bool onednn_gemm_bf16(const Gemm&, const void*, const void*, void*) { return false; }
bool onednn_matmul(Queue&, const Gemm&, const void*, const void*, void*) { return false; }

}  // namespace mezzo::kernels
