// pages.h - memory from the system, and the address sanitizer's marks on it.
#pragma once

#include <cstddef>

#include "core/sanitizer.h"

#if MEZZO_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace mezzo {

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Zeroed pages, aligned to 2 MiB and asked to be huge pages when there are 2 MiB or more of them. Null when the system refuses.
void* map_pages(std::size_t bytes) noexcept;
void unmap_pages(void* p, std::size_t bytes) noexcept;
/// What is in these pages is lost, and they take no memory until they are touched again; both ends are multiples of 4 KiB.
void discard_pages(void* p, std::size_t bytes) noexcept;

/// A range of addresses the front of which is memory: it grows and shrinks in place, so that no block meets a border between two mappings.
class PageRange {
 public:
  PageRange() = default;
  PageRange(const PageRange&) = delete;
  PageRange& operator=(const PageRange&) = delete;
  ~PageRange();

  /// `bytes` more of zeroed memory behind what there is, from a multiple of 2 MiB on; the first call reserves addresses for `most` bytes, which cost
  /// nothing. Null when the system refuses, when the range is full, or when the process may not have as many addresses as it likes (RLIMIT_AS).
  char* grow(std::size_t bytes, std::size_t most) noexcept;
  /// The last `bytes` go back to the system.
  void shrink(std::size_t bytes) noexcept;

  char* begin() const { return begin_; }
  char* end() const { return end_; }

 private:
  void reserve(std::size_t most) noexcept;

  char *begin_ = nullptr, *end_ = nullptr, *limit_ = nullptr;
};

// A free block is out of bounds for the address sanitizer, so that a use after free is found although the memory stays mapped;
// a red zone behind each block separates it from its neighbour.
#if MEZZO_ASAN
inline constexpr std::size_t kRedZone = 64;
inline void forbid(void* p, std::size_t bytes) noexcept { __asan_poison_memory_region(p, bytes); }
inline void allow(void* p, std::size_t bytes) noexcept { __asan_unpoison_memory_region(p, bytes); }
#else
inline constexpr std::size_t kRedZone = 0;
inline void forbid(void*, std::size_t) noexcept {}
inline void allow(void*, std::size_t) noexcept {}
#endif

}  // namespace mezzo
