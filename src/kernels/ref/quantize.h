// quantize.h - one element kept in 16 or 8 bits: an f32 split in two, rounded by chance, or as a code of the dynamic 8-bit map.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include <mezzo/dtype.h>

#include "core/philox.h"

namespace mezzo::kernels::ref {

// ---- an f32 as bf16 and 16 bits of remainder ------------------------------------------------------------

struct SplitFloat {
  bf16_t high;       // the number rounded half away from zero
  std::int16_t low;  // what to add to high's bits << 16
};
/// Exact for every number, Inf included; a NaN stays one, in high too (where adding 0x8000 could carry it into Inf or zero).
inline SplitFloat split(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  SplitFloat s;
  if (std::isnan(x)) {
    s.high.bits = static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    s.low = 0;
  } else {
    s.high.bits = static_cast<std::uint16_t>((bits + 0x8000u) >> 16);
    s.low = static_cast<std::int16_t>(bits - (static_cast<std::uint32_t>(s.high.bits) << 16));
  }
  return s;
}
/// A zero with a negative remainder, which split never makes but a user who clears a weight does, is that zero.
inline float join(SplitFloat s) {
  const std::uint32_t high = static_cast<std::uint32_t>(s.high.bits) << 16;
  if ((high << 1) == 0 && s.low < 0) return std::bit_cast<float>(high);
  return std::bit_cast<float>(high + static_cast<std::uint32_t>(static_cast<std::int32_t>(s.low)));
}

// ---- rounding by chance ---------------------------------------------------------------------------------

/// Bits `element` of (seed, stream): sixteen of the 128 of a Philox block, in order.
inline std::uint16_t random_bits(std::uint64_t seed, std::uint64_t stream, std::uint64_t element) {
  const std::uint32_t word = philox::block(seed, element / 8, stream)[element % 8 / 2];
  return static_cast<std::uint16_t>(element % 2 == 0 ? word : word >> 16);
}

/// x to one of the bf16 beside it: away from zero with a probability of exactly its distance from the nearer to zero over their distance, in units
/// of 2^-16, which is what f32 resolves; subnormal numbers are no exception. Beyond the largest bf16, where there is nothing to weigh Inf
/// against, to nearest.
inline bf16_t round_stochastic(float x, std::uint16_t random) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) >= 0x7f7f0000u) return bf16_t(x);
  bf16_t y;
  y.bits = static_cast<std::uint16_t>((bits + random) >> 16);
  return y;
}

// ---- the dynamic 8-bit map ------------------------------------------------------------------------------
//
// "Dynamic tree quantization" of Dettmers, Lewis, Shleifer, Zettlemoyer, 8-bit Optimizers via Block-wise Quantization (arXiv 2110.02861, section
// 2.2 and appendix F), in a variant that holds both ends of every decade. A code c of B + 1 bits (B = 7; 6 beside a sign) has its leading one at bit
// L and means 10^(L - B) (0.1 + 0.9 (k + 1) / 2^L), k = c - 2^L; 0 means 0. So codes rise with what they mean, the largest means 1, and each decade
// below has half as many.

/// The map of codes of B + 1 bits, as decades L = 0 .. B; padded to the widest vector.
template <int kB> struct DynamicMap {
  std::array<float, 16> ends{};            // 10^(L - B)
  std::array<float, 16> first{}, step{};   // code c of decade L means first + step (c - 2^L + 1)
  std::array<float, 16> slope{}, shift{};  // x of decade L is code shift + slope x, when codes are numbers
  constexpr DynamicMap() {
    double end = 1, codes = 1 << kB;  // of decade L
    for (std::size_t l = kB + 1; l-- > 0; end /= 10, codes /= 2) {
      ends[l] = static_cast<float>(end);
      first[l] = static_cast<float>(0.1 * end);
      step[l] = static_cast<float>(0.9 * end / codes);
      slope[l] = static_cast<float>(codes / (0.9 * end));
      shift[l] = static_cast<float>(codes - 1 - codes / 9);
    }
  }
};
template <int kB> inline constexpr DynamicMap<kB> kDynamicMap{};

/// What code c of B + 1 bits means.
template <int kB> float dynamic_value(unsigned c) {
  if (c == 0) return 0;
  const auto l = static_cast<std::size_t>(std::bit_width(c) - 1);
  return kDynamicMap<kB>.first[l] + kDynamicMap<kB>.step[l] * static_cast<float>(c - (1u << l) + 1);
}

/// x in [0, 1] as a code of B + 1 bits: up or down in its decade, as `random` in [0, 1) decides (1/2: to nearest). Of a second moment (B = 7)
/// only 0 becomes 0: a step divided by the root of a 0 that should have been something would be as long as eps allows.
template <int kB> unsigned dynamic_code(float x, float random) {
  std::size_t l = 0;
  while (l < kB && x > kDynamicMap<kB>.ends[l]) ++l;
  const float c = kDynamicMap<kB>.slope[l] * x + (kDynamicMap<kB>.shift[l] + random);
  const auto code = static_cast<unsigned>(std::fmin(std::fmax(c, 0), static_cast<float>((2 << kB) - 1)));
  return kB == 7 && x > 0 && code == 0 ? 1 : code;
}

}  // namespace mezzo::kernels::ref
