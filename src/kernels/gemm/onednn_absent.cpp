// onednn_absent.cpp - builds without oneDNN: the packed product computes everything, convolutions through columns. oneDNN runs on OpenMP, which the
// thread sanitizer cannot see into, and which must not meet a second OpenMP run time.
#include "kernels/gemm/onednn.h"

namespace mezzo::kernels {

bool onednn_matmul(Queue&, const Gemm&, const void*, const void*, void*) { return false; }
bool onednn_conv(Queue&, const Conv&, const void*, const void*, const void*, void*) { return false; }
bool onednn_conv_input_grad(Queue&, const Conv&, const void*, const void*, void*) { return false; }
bool onednn_conv_weight_grad(Queue&, const Conv&, const void*, const void*, void*, bool) { return false; }

}  // namespace mezzo::kernels
