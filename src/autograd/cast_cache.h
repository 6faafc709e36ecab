// cast_cache.h - the 16-bit copies of parameters, kept on their storage: no address is a key, nothing outlives its source.
#pragma once

#include <optional>

#include "tensor/impl.h"

namespace mezzo::autograd {

/// A tensor with x's layout over the 16-bit copy of x's whole storage: made when absent, remade when x has changed since (a new block when a
/// graph may still hold the old one). x is an f32 parameter: a leaf that requires grad, a module's parameter, or a view of one.
Tensor cached_cast(const Tensor& x, Dtype dtype);

/// The copy the optimizer is to rewrite along with f32 leaf w: undefined when there is none for that dtype. Marks the copy changed,
/// so that a graph that saved it is caught; call mark_fresh once both are written.
Tensor begin_copy_update(const Tensor& w, Dtype dtype);
/// The dtype of the copy that w's storage holds, if it holds one.
std::optional<Dtype> cached_dtype(const Tensor& w);
/// w and its copy agree again.
void mark_fresh(const Tensor& w, Dtype dtype);

}  // namespace mezzo::autograd
