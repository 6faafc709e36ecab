// gemm.h - an element of a matrix product, as its definition says.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// An element of C before it is rounded, and the sum of the sizes of its terms, which rounding errors are proportional to.
struct GemmElement {
  double value = 0, size = 0;
};

inline double as_double(double x) { return x; }
template <class T> double as_double(T x) { return static_cast<double>(static_cast<float>(x)); }

/// Element (i, j) of product `batch`, in double. T: operands; C: output and residual; B: bias. c holds what stood there before.
template <class T, class C, class B>
GemmElement gemm_element(const Gemm& g, const T* a, const T* b, const C* c, std::int64_t batch, std::int64_t i, std::int64_t j) {
  a += batch * g.stride_a;
  b += batch * g.stride_b;
  const std::int64_t at = batch * g.stride_c + i * g.ldc + j;
  GemmElement e;
  if (g.alpha != 0) {
    const std::int64_t step_a = g.trans_a ? g.lda : 1, step_b = g.trans_b ? 1 : g.ldb;
    a += g.trans_a ? i : i * g.lda;
    b += g.trans_b ? j * g.ldb : j;
    for (std::int64_t p = 0; p < g.k; ++p) {
      const double term = as_double(a[p * step_a]) * as_double(b[p * step_b]);
      e.value += term;
      e.size += std::abs(term);
    }
    e.value *= g.alpha;
    e.size *= std::abs(g.alpha);
  }
  const auto add = [&e](double term) {
    e.value += term;
    e.size += std::abs(term);
  };
  if (g.beta != 0) add(g.beta * as_double(c[at]));
  if (g.bias) add(as_double(static_cast<const B*>(g.bias)[j]));
  if (g.residual) add(as_double(static_cast<const C*>(g.residual)[at]));
  return e;
}

}  // namespace mezzo::kernels::ref
