// layout.h - walks a shared index space of strided operands as spans of contiguous elements.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace mezzo::kernels {

/// Elements that one thread should at least get in an element-wise kernel, and where its range may begin (in elements): a cache line of any
/// dtype, and a whole number of vectors.
inline constexpr std::int64_t kGrain = 16384, kAlign = 64;

/// The element `i` of an array whose elements have `bytes` bytes.
inline void* at(void* p, std::int64_t i, std::size_t bytes) { return static_cast<std::byte*>(p) + i * static_cast<std::int64_t>(bytes); }
inline const void* at(const void* p, std::int64_t i, std::size_t bytes) {
  return static_cast<const std::byte*>(p) + i * static_cast<std::int64_t>(bytes);
}

/// The same index space with the fewest dims: sizes of 1 dropped, dims ordered by operand 0's strides (the innermost is the smallest) and
/// merged where every operand allows. At least one dim.
Strided collapse(const Strided&);

/// Whether the operand's elements lie one after the other in the order of the index space.
bool contiguous(const Strided&, int operand);

/// A place in the index space and the offset of each operand there, in elements.
class Odometer {
 public:
  explicit Odometer(const Strided& space, std::int64_t flat = 0);
  std::int64_t offset(int operand) const { return offset_[operand]; }
  /// Elements left of the innermost row.
  std::int64_t left() const { return space_->size[last_] - index_[last_]; }
  /// Moves on by n <= left() elements.
  void advance(std::int64_t n);

 private:
  const Strided* space_;
  int last_;
  std::array<std::int64_t, kMaxDims> index_{};
  std::array<std::int64_t, 4> offset_{};
};

/// n elements of each operand, contiguous; but the operand `splat` (never 0, the output; -1: none) is one element that stands for n.
struct Span {
  std::array<void*, 4> p{};
  int splat = -1;
  std::int64_t n = 0;
  template <class T> T* as(int operand) const { return static_cast<T*>(p[operand]); }
};

/// Runs body on spans that cover the index space once, in parallel. Operand k has elements of bytes[k] bytes from base[k] on. Rows that are
/// not contiguous, or too short to be worth a call, go through buffers in L1.
void for_each_span(const Strided&, std::array<std::size_t, 4> bytes, std::array<void*, 4> base, FunctionRef<void(const Span&)> body);

}  // namespace mezzo::kernels
