// rows.h - how the row kernels cut their work: whole rows, in parts worth a thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::kernels {

/// Rows of c elements that are worth handing to another thread.
inline std::int64_t row_grain(std::int64_t c) { return std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, c)); }

/// Row r of p (rows, c); null stays null.
inline const void* row_of(const void* p, Dtype dtype, std::int64_t r, std::int64_t c) {
  return p ? static_cast<const std::byte*>(p) + r * c * static_cast<std::int64_t>(size_of(dtype)) : nullptr;
}
inline void* row_of(void* p, Dtype dtype, std::int64_t r, std::int64_t c) {
  return p ? static_cast<std::byte*>(p) + r * c * static_cast<std::int64_t>(size_of(dtype)) : nullptr;
}

/// Element i of an array of i32 or i64.
inline std::int64_t index_at(Dtype dtype, const void* p, std::int64_t i) {
  return dtype == i32 ? static_cast<const std::int32_t*>(p)[i] : static_cast<const std::int64_t*>(p)[i];
}

}  // namespace mezzo::kernels
