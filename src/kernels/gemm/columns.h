// columns.h - what a convolution sees of an activation, laid out as a matrix: a row for each place, a column for each tap and channel.
#pragma once

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// Which pixels a place sees, one a tap. forward: places are pixels of y, taps see x. adjoint: places are pixels of x, taps see y.
enum class See : bool { forward, adjoint };

/// columns (end - begin, taps, width) = for places [begin, end) of all images: channels [first, first + width) of the pixel that each tap sees, zeros
/// where it sees none. Elements of `bytes` bytes.
void gather_columns(const Conv&, See, const void* activation, std::size_t bytes, std::int64_t first, std::int64_t width, std::int64_t begin,
                    std::int64_t end, void* columns);

/// conv, conv_input_grad and conv_weight_grad of kernels.h through columns and gemm(): every dtype, everywhere.
void columns_conv(Queue&, const Conv&, const void* x, const void* w, const void* bias, void* y);
void columns_conv_input_grad(Queue&, const Conv&, const void* w, const void* dy, void* dx);
void columns_conv_weight_grad(Queue&, const Conv&, const void* x, const void* dy, void* dw, bool accumulate);

}  // namespace mezzo::kernels
