// positions.h - where each token of a row stands in its document.
#pragma once

#include <mezzo/models.h>

namespace mezzo::models {

/// Positions (T) i64 of t tokens: from 0 in each document, or on from what the cache holds.
Tensor positions_of(std::int64_t t, const Sequence&);

/// The dtype that a model with this head computes in: the autocast region's, or the head's own.
Dtype computing_dtype(const Tensor& head);

}  // namespace mezzo::models
