// convert.h - one element from any dtype to any other: one rounding, to nearest even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <mezzo/dtype.h>

namespace mezzo::kernels::ref {

template <class T> inline constexpr bool kIs16Bit = std::is_same_v<T, f16_t> || std::is_same_v<T, bf16_t>;
/// What arithmetic on T is done in: f32 for the 16-bit formats, T itself otherwise.
template <class T> using Wide = std::conditional_t<kIs16Bit<T>, float, T>;

/// x in f32, to nearest or, where that is not x, to the neighbour whose last bit is 1: the result still knows on which side of every
/// 16-bit number and of every midpoint x lies, so rounding it once more is rounding x (Boldo, Melquiond, "Emulation of FMA and correctly
/// rounded sums", 2008).
inline float round_to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || std::isnan(x) || std::isinf(nearest)) return nearest;
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  if (std::abs(static_cast<double>(nearest)) > std::abs(x)) --bits;  // toward zero
  return std::bit_cast<float>(bits | 1u);
}
inline float round_to_odd(std::int64_t x) {
  constexpr int kDropped = 10;  // 53 bits and a sign stay
  constexpr std::int64_t kExact = std::int64_t{1} << 53, kLow = (std::int64_t{1} << kDropped) - 1;
  if (-kExact <= x && x <= kExact) return round_to_odd(static_cast<double>(x));
  return round_to_odd(static_cast<double>(((x >> kDropped) | ((x & kLow) != 0)) * (kLow + 1)));
}

/// Toward zero; beyond the range of To its nearest end, NaN 0.
template <class To, class From> To truncate(From x) {
  using Limits = std::numeric_limits<To>;
  constexpr From kEnd = static_cast<From>(std::uint64_t{1} << (Limits::digits - 1)) * 2;  // max + 1, exact
  if (x >= kEnd) return Limits::max();
  if (x <= (Limits::is_signed ? -kEnd : From(0))) return Limits::min();
  return x == x ? static_cast<To>(x) : To(0);
}

template <class To, class From> To cast(From x) {
  if constexpr (std::is_same_v<To, From>) return x;
  else if constexpr (kIs16Bit<From>) return cast<To>(static_cast<float>(x));
  else if constexpr (std::is_same_v<To, bool>) return x != From(0);
  else if constexpr (kIs16Bit<To>) {
    if constexpr (std::is_same_v<From, float>) return To(x);
    else if constexpr (std::is_integral_v<From>) return To(round_to_odd(static_cast<std::int64_t>(x)));
    else return To(round_to_odd(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) return truncate<To>(x);
  else return static_cast<To>(x);
}

}  // namespace mezzo::kernels::ref
