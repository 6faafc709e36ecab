// per_dim.h - options that are one number, or one for each spatial dimension.
#pragma once

#include <array>

#include <mezzo/ops.h>
#include "core/fail.h"

namespace mezzo {

/// The numbers for each of n dimensions; Error naming `field` for another count, or a number below `least`.
template <std::size_t n> std::array<std::int64_t, n> per_dim(const char* op, const char* field, const PerDim& given, std::int64_t least) {
  const auto& v = given.values();
  if (v.size() != 1 && v.size() != n)
    fail(op, fmt::format(".{} has {} numbers, {} wanted", field, v.size(), n == 1 ? "one" : fmt::format("one, or {}", n)),
         "one number stands for every spatial dimension");
  std::array<std::int64_t, n> out{};
  for (std::size_t d = 0; d < n; ++d) {
    out[d] = v[v.size() == 1 ? 0 : d];
    if (out[d] < least) fail(op, fmt::format(".{} = {} given, {} or more wanted", field, out[d], least));
  }
  return out;
}

}  // namespace mezzo
