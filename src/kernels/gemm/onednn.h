// onednn.h - matrix products and convolutions by oneDNN: the only header of ours that stands for it. (onednn*.cpp, or onednn_absent.cpp in builds
// without.)
#pragma once

#include "kernels/kernels.h"

namespace mezzo::kernels {

// Each computes one product (batch is not looked at; m, n, k > 0) and returns true, or does nothing and returns false where oneDNN 2.6.3
// has no fast implementation: the packed product takes those. None uses a `ref` implementation, nor emulates bf16.
//
// Not the library's products without a primitive. dnnl_sgemm, though up to a tenth faster on weight gradients: its kernel lets the stack pointer
// point into a block of malloc's (2.6.3 to this day), so that a signal handled meanwhile writes its frame over the heap. One Ctrl-C in a hundred
// ended in a corrupted heap. dnnl_gemm_bf16bf16f32: declared in none of its headers, no faster, and its packing buffers come from malloc in every
// thread, where they are put apart by what else is allocated: now and then, a step touched new memory.

/// f32; or bf16 operands and bf16 or f32 C. alpha 1, beta 0 or 1.
bool onednn_matmul(Queue&, const Gemm&, const void* a, const void* b, void* c);

// The same for convolutions, as kernels.h has them, in f32 and bf16, without empty sizes: what these refuse goes through columns.
bool onednn_conv(Queue&, const Conv&, const void* x, const void* w, const void* bias, void* y);
bool onednn_conv_input_grad(Queue&, const Conv&, const void* w, const void* dy, void* dx);
bool onednn_conv_weight_grad(Queue&, const Conv&, const void* x, const void* dy, void* dw, bool accumulate);

}  // namespace mezzo::kernels
