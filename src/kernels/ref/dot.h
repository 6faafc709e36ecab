// dot.h - a dot product as an accumulator of a given format takes it.
#pragma once

#include <cstdint>

#include "kernels/ref/convert.h"

namespace mezzo::kernels::ref {

/// a[0] b[0] + a[1] b[1] + ..., in order, k terms of T: each product is exact and is added to what an accumulator of format A holds, with one
/// rounding to A (a fused multiply-add in A). Of f16 and bf16 operands with A = double the result is exact to 2^-53 a term.
template <class A, class T> A dot(const T* a, const T* b, std::int64_t k) {
  A sum = cast<A>(0.0);
  for (std::int64_t i = 0; i < k; ++i) sum = cast<A>(cast<double>(sum) + cast<double>(a[i]) * cast<double>(b[i]));
  return sum;
}

}  // namespace mezzo::kernels::ref
