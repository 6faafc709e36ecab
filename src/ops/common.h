// common.h - what every op family uses at its boundary.
#pragma once

#include <initializer_list>

#include <mezzo/ops.h>
#include "autograd/node.h"
#include "core/fail.h"
#include "core/parts.h"
#include "kernels/kernels.h"
#include "tensor/impl.h"
#include "tensor/layout.h"

namespace mezzo {

using autograd::Backward;
using autograd::let_remake;
using autograd::record;
using autograd::should_record;
using kernels::cpu_queue;

/// t, or a contiguous copy outside the graph.
Tensor dense(const Tensor& t);
/// The operand with contiguous elements; its original stays.
inline Operand dense(Operand o) {
  if (o.value.defined()) o.value = dense(o.value);
  return o;
}

/// g summed over the dimensions in which `to` was broadcast, accumulated in f32 and given in to.dtype when that is wider than g's.
Tensor sum_to(const Tensor& g, const autograd::TensorMeta& to);

void require_floating(const char* op, const Tensor& t, const char* what = "the input");
void require_index(const char* op, const Tensor& t, const char* what);
/// Error unless every index is in [0, n).
void check_indices(const char* op, const Tensor& index, std::int64_t n);

/// Sizes around dimension d of a contiguous tensor: (outer, n, inner).
struct Around {
  std::int64_t outer = 1, n = 1, inner = 1;
};
Around around(const Shape& shape, int d);

/// Scalar kinds of a loss's end: none, mean over `count` rows, or sum; losses is f32 or f64.
Tensor reduce_loss(const Tensor& losses, Reduction, double count);

}  // namespace mezzo
