// size_class.h - the sizes of small blocks that the allocator deals in.
#pragma once

#include <bit>
#include <cstddef>

namespace mezzo {

// Multiples of 64 bytes up to 512, then 8 sizes to each doubling: at most 1/8 is wasted.
inline constexpr std::size_t kLargeBlock = std::size_t{128} << 10;
inline constexpr std::size_t kMaxBlock = std::size_t{1} << 46;
inline constexpr int kSmallClasses = 8 + 8 * 8 - 1;  // 64 ... 512, eight doublings, without 128 KiB itself

/// What is more than the largest class holds.
constexpr bool is_large(std::size_t bytes) { return bytes > kLargeBlock / 16 * 15; }

struct SizeClass {
  int index;
  std::size_t bytes;  // of a block of this class
  friend constexpr bool operator==(SizeClass, SizeClass) = default;
};

/// The smallest class that holds `bytes`, which are not large.
constexpr SizeClass size_class(std::size_t bytes) {
  if (bytes <= 512) {
    const int index = bytes == 0 ? 0 : static_cast<int>((bytes - 1) / 64);
    return {index, static_cast<std::size_t>(index + 1) * 64};
  }
  const std::size_t last = bytes - 1;
  const int octave = std::bit_width(last) - 1;  // last is in [2^octave, 2^(octave + 1))
  const auto step = (last >> (octave - 3)) & 7;
  return {8 + (octave - 9) * 8 + static_cast<int>(step), (9 + step) << (octave - 3)};
}

/// Bytes of a block of class `index`.
constexpr std::size_t class_bytes(int index) {
  if (index < 8) return static_cast<std::size_t>(index + 1) * 64;
  return static_cast<std::size_t>(9 + index % 8) << (index / 8 + 5);
}

}  // namespace mezzo
