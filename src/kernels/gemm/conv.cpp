// conv.cpp - convolutions: checks, empty sizes, and the choice of who computes them: oneDNN where it has a fast implementation, else columns.
#include "core/fail.h"
#include "kernels/gemm/columns.h"
#include "kernels/gemm/onednn.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {
namespace {

std::int64_t elements(std::int64_t n, std::int64_t channels, const std::array<std::int64_t, 3>& sizes) {
  return n * channels * sizes[0] * sizes[1] * sizes[2];
}

void check(const Conv& c) {
  MEZZO_CHECK(c.dtype == conv_dtype(c.dtype) && (c.result == c.dtype || (c.result == f32 && is_16bit(c.dtype))));
  MEZZO_CHECK(c.groups >= 1 && c.c >= c.groups && c.o >= c.groups && c.c % c.groups == 0 && c.o % c.groups == 0);
  for (int d = 0; d < 3; ++d)
    MEZZO_CHECK(c.in[d] >= 0 && c.out[d] >= 0 && c.kernel[d] >= 1 && c.stride[d] >= 1 && c.padding[d] >= 0 && c.dilation[d] >= 1);
}

void zero(Queue& queue, Dtype t, void* p, std::int64_t n) {
  Strided s;
  s.dims = 1;
  s.size[0] = n;
  s.stride[0][0] = 1;
  fill(queue, t, 0, p, s);
}

}  // namespace

Dtype conv_dtype(Dtype t) { return is_16bit(t) && !native_gemm(t) ? f32 : t; }

void conv(Queue& queue, const Conv& c, const void* x, const void* w, const void* bias, void* y) {
  check(c);
  if (elements(c.n, c.o, c.out) == 0) return;
  if (!onednn_conv(queue, c, x, w, bias, y)) columns_conv(queue, c, x, w, bias, y);
}

void conv_input_grad(Queue& queue, const Conv& c, const void* w, const void* dy, void* dx) {
  check(c);
  if (elements(c.n, c.c, c.in) == 0) return;
  if (elements(c.n, c.o, c.out) == 0) return zero(queue, c.result, dx, elements(c.n, c.c, c.in));
  if (!onednn_conv_input_grad(queue, c, w, dy, dx)) columns_conv_input_grad(queue, c, w, dy, dx);
}

void conv_weight_grad(Queue& queue, const Conv& c, const void* x, const void* dy, void* dw, bool accumulate) {
  check(c);
  if (elements(c.n, c.o, c.out) == 0) {
    if (!accumulate) zero(queue, c.dtype == f64 ? f64 : f32, dw, elements(c.o, c.c / c.groups, c.kernel));
    return;
  }
  if (!onednn_conv_weight_grad(queue, c, x, dy, dw, accumulate)) columns_conv_weight_grad(queue, c, x, dy, dw, accumulate);
}

}  // namespace mezzo::kernels
