// positions.cpp - positions of documents side by side or behind a cache, and the dtype that a model computes in.
#include "models/positions.h"

#include <vector>

#include "autograd/context.h"

namespace mezzo::models {

Tensor positions_of(std::int64_t t, const Sequence& s) {
  std::vector<std::int64_t> out;
  out.reserve(static_cast<std::size_t>(t));
  const auto count = [&](std::int64_t from, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) out.push_back(from + i);
  };
  for (const auto n : s.lengths) count(0, n);
  if (s.lengths.empty()) count(s.cache ? s.cache->length() : 0, t);
  return from_span(std::span<const std::int64_t>(out), {static_cast<std::int64_t>(out.size())});
}

Dtype computing_dtype(Dtype weights) {
  const ExecutionContext& now = mezzo::context();
  return now.autocast && eligible(weights) ? now.dtype : weights;
}

}  // namespace mezzo::models
