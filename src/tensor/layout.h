// layout.h - shapes that broadcast, and the collapsed index space that strided kernels walk.
#pragma once

#include <initializer_list>

#include "kernels/kernels.h"
#include "tensor/impl.h"

namespace mezzo {

/// The shape both broadcast to (numpy's rule); Error naming op and both shapes.
Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b);

/// Strides of t seen in `shape` (0 where it is broadcast).
detail::Strides broadcast_strides(const Tensor& t, const Shape& shape);

/// The index space of `operands` (the first is the output, whose shape it is), size-1 dims dropped and adjacent dims merged.
kernels::Strided strided(std::initializer_list<const Tensor*> operands);

/// Strides that make a view of t's elements with `shape`, if there are such strides. false: a copy is needed.
bool view_strides(const Tensor& t, const Shape& shape, detail::Strides& out);

/// Fills a -1 in `shape` from numel; Error when the sizes do not fit.
Shape resolve_reshape(const Shape& shape, std::int64_t numel, const Shape& from);

/// dst (any layout) = src (broadcast, converted), as bits move: no graph, no version.
void copy_elements(const Tensor& dst, const Tensor& src);

}  // namespace mezzo
