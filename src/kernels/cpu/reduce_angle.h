// reduce_angle.h - the remainder of a large f32 angle by pi / 2, exact enough for any (Payne & Hanek, 1983).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace mezzo::kernels {

/// From here on sin and cos need more digits of pi than two doubles hold.
inline constexpr float kLargeAngle = 0x1p25f;

/// x = (4 k + quarter) pi / 2 + remainder for some integer k, |remainder| <= pi / 4.
struct Angle {
  std::uint64_t quarter;
  double remainder;
};

inline Angle reduce_angle(float x) {
  if (!(std::abs(x) >= kLargeAngle) || std::isinf(x)) return {0, static_cast<double>(x)};
  constexpr std::uint64_t kTwoOverPi[] = {0xa2f9836e4e441529u, 0xfc2757d1f534ddc0u, 0xdb6295993c439041u, 0xfe5163abdebbc561u};  // from 2^-1 down
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;
  const int exponent = static_cast<int>(bits >> 23 & 0xffu) - 150;  // |x| = mantissa 2^exponent, 2 <= exponent <= 104
  // The first exponent - 2 digits of 2 / pi contribute multiples of 4. The next 128 give the quarters modulo 4 with 126 digits behind the point.
  const auto digits = [&](int from) {
    const int word = from / 64, shift = from % 64;
    return shift == 0 ? kTwoOverPi[word] : kTwoOverPi[word] << shift | kTwoOverPi[word + 1] >> (64 - shift);
  };
  __extension__ using Wide = unsigned __int128;
  const std::uint64_t high = mantissa * digits(exponent - 2);                                                          // modulo 2^64
  const auto quarters = high + static_cast<std::uint64_t>(static_cast<Wide>(mantissa) * digits(exponent + 62) >> 64);  // 62 digits behind the point
  const std::uint64_t nearest = (quarters + (std::uint64_t{1} << 61)) >> 62;
  const double remainder = static_cast<double>(static_cast<std::int64_t>(quarters - (nearest << 62))) * (0x1p-62 * 0x1.921fb54442d18p0);
  return std::signbit(x) ? Angle{(0 - nearest) & 3u, -remainder} : Angle{nearest & 3u, remainder};
}

}  // namespace mezzo::kernels
