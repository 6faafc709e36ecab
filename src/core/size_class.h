// size_class.h - the sizes of blocks that the allocator deals in.
#pragma once

#include <bit>
#include <cstddef>

namespace mezzo {

// Small: multiples of 64 bytes up to 512, then 8 sizes to each doubling: at most 1/8 is wasted.
// Large (1 MiB and up): 16 sizes to each doubling: at most 1/16 is wasted. Steps are multiples of 64 KiB, so of pages too.
inline constexpr std::size_t kLargeBlock = std::size_t{1} << 20;
inline constexpr std::size_t kMaxBlock = std::size_t{1} << 46;
inline constexpr int kSmallClasses = 8 + 11 * 8 - 1;  // 64 ... 512, eleven doublings, without 1 MiB itself
inline constexpr int kLargeClasses = 1 + 26 * 16;     // 1 MiB, 26 doublings

struct SizeClass {
  int index;
  std::size_t bytes;  // of a block of this class
  friend constexpr bool operator==(SizeClass, SizeClass) = default;
};

/// The smallest class that holds `bytes` <= kMaxBlock.
constexpr SizeClass size_class(std::size_t bytes) {
  if (bytes <= 512) {
    const int index = bytes == 0 ? 0 : static_cast<int>((bytes - 1) / 64);
    return {index, static_cast<std::size_t>(index + 1) * 64};
  }
  const std::size_t last = bytes - 1;
  const int octave = std::bit_width(last) - 1;  // last is in [2^octave, 2^(octave + 1))
  if (bytes <= kLargeBlock / 16 * 15) {
    const auto step = (last >> (octave - 3)) & 7;
    return {8 + (octave - 9) * 8 + static_cast<int>(step), (9 + step) << (octave - 3)};
  }
  if (bytes <= kLargeBlock) return {kSmallClasses, kLargeBlock};
  const auto step = (last >> (octave - 4)) & 15;
  return {kSmallClasses + 1 + (octave - 20) * 16 + static_cast<int>(step), (17 + step) << (octave - 4)};
}

/// Bytes of a block of class `index`.
constexpr std::size_t class_bytes(int index) {
  if (index < 8) return static_cast<std::size_t>(index + 1) * 64;
  if (index < kSmallClasses) return static_cast<std::size_t>(9 + index % 8) << (index / 8 + 5);
  if (index == kSmallClasses) return kLargeBlock;
  const int step = index - kSmallClasses - 1;
  return static_cast<std::size_t>(17 + step % 16) << (step / 16 + 16);
}

constexpr bool is_large(SizeClass c) { return c.index >= kSmallClasses; }

}  // namespace mezzo
