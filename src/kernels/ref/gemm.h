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
    const auto sum = [&](const T* x, std::int64_t ldx, const T* y, std::int64_t ldy, std::int64_t k) {
      for (std::int64_t p = 0; p < k; ++p) {
        const double term = as_double(x[g.trans_a ? p * ldx + i : i * ldx + p]) * as_double(y[g.trans_b ? j * ldy + p : p * ldy + j]);
        e.value += term;
        e.size += std::abs(term);
      }
    };
    sum(a, g.lda, b, g.ldb, g.k);
    sum(static_cast<const T*>(g.tail.a), g.tail.lda, static_cast<const T*>(g.tail.b), g.tail.ldb, g.tail.k);
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
