// product.h - the matrix product as ops use it, outside the graph: layouts found, copies only where a kernel could not read.
#pragma once

#include "ops/common.h"

namespace mezzo {

/// Views outside the graph: a contiguous tensor as a matrix, a matrix transposed.
Tensor as_rows(const Tensor&, std::int64_t rows, std::int64_t cols);
Tensor turned(const Tensor&);

/// a (m, k) or a batch of it, and b (k, n) alike (equal batch sizes, or one of them without batch): their product, accumulated in f32, stored as
/// `to`.
Tensor product(const Tensor& a, const Tensor& b, Dtype to);
/// The same into `out` (contiguous), added to it with `accumulate`. 2-D only.
void product_into(const Tensor& out, const Tensor& a, const Tensor& b, bool accumulate);

/// The op `op` as one recorded product: (m, k) and (k, n), or batches of them of one length; operands cast as op's class says.
Tensor recorded_product(OpId op, const Tensor& a, const Tensor& b);

/// Gives input i of a node the gradient a b (2-D): straight into an f32 leaf's buffer where that may be, in f32 for an f32 leaf, else in the
/// operands' dtype. torch's policy rounds to the operands' dtype first.
void give_product(Backward& g, int input, const Tensor& a, const Tensor& b, bool round_first);

/// Gives inputs i and j of a node, x (..., k) and w (n, k) of a term x w^T of its output, what they want of the gradient dy (rows, n): x's is added
/// to what already waits for it, unless it is rounded by itself as torch does.
void give_factors(Backward& g, int i, int j, const Tensor& dy, const Tensor& x, const Tensor& w, bool round_first);

/// Gives input i of a node, a bias (C), its gradient, if that is wanted: the sums of d (rows, C) over its rows, straight into an f32 leaf's buffer
/// where that may be.
void give_bias(Backward& g, int input, const Tensor& d);

/// x w^T, which joins the sum of a linear layer before it is rounded: x (..., r), w (out, r); undefined: nothing.
struct Joined {
  Tensor x, w;
};

namespace detail {
/// x w^T + b + residual + joined.x joined.w^T.
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual, const Joined& joined = {});
}  // namespace detail

}  // namespace mezzo
