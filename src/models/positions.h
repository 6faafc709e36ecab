// positions.h - where each token of a row stands in its document.
#pragma once

#include <mezzo/models.h>

namespace mezzo::models {

/// Positions (T) i64 of t tokens: from 0 in each document, or on from what the cache holds.
Tensor positions_of(std::int64_t t, const Sequence&);

/// The dtype that a model with such weights computes in: the autocast region's, or their own.
Dtype computing_dtype(Dtype weights);

}  // namespace mezzo::models
