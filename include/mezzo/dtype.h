// dtype.h - element types, their format facts, and the 16-bit scalar types.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string_view>

#include <mezzo/error.h>

namespace mezzo {

enum class Dtype : std::uint8_t { f32, f16, bf16, f64, i32, i64, u8, boolean };
inline constexpr Dtype f32 = Dtype::f32, f16 = Dtype::f16, bf16 = Dtype::bf16, f64 = Dtype::f64;
inline constexpr Dtype i32 = Dtype::i32, i64 = Dtype::i64, u8 = Dtype::u8, boolean = Dtype::boolean;

/// "f32", "f16", ... as printed and as accepted by dtype_from_name.
MEZZO_API std::string_view name(Dtype);
MEZZO_API Dtype dtype_from_name(std::string_view);  ///< Error for another
MEZZO_API std::ostream& operator<<(std::ostream&, Dtype);

constexpr std::size_t size_of(Dtype t) {  ///< bytes of an element
  switch (t) {
    case Dtype::f16:
    case Dtype::bf16: return 2;
    case Dtype::f32:
    case Dtype::i32: return 4;
    case Dtype::f64:
    case Dtype::i64: return 8;
    case Dtype::u8:
    case Dtype::boolean: return 1;
  }
  return 0;
}
constexpr bool is_floating(Dtype t) { return t == f32 || t == f16 || t == bf16 || t == f64; }
constexpr bool is_16bit(Dtype t) { return t == f16 || t == bf16; }
constexpr bool is_integer(Dtype t) { return t == i32 || t == i64 || t == u8; }  ///< boolean is none

/// Facts of a floating format (IEEE 754-2008 for f16, f32, f64; bfloat16 is the upper half of an f32).
struct FormatInfo {
  int bits, exponent_bits, mantissa_bits;
  double max, min_normal, min_subnormal, epsilon;
};
/// Error for a dtype that is not floating.
MEZZO_API FormatInfo format_info(Dtype);

/// The dtype that holds both: f16 with bf16 gives f32, a float with an integer gives the float.
MEZZO_API Dtype promote(Dtype, Dtype);

namespace detail {
MEZZO_API std::uint16_t f32_to_f16(float);  // round to nearest even; NaN stays (quiet) NaN
MEZZO_API float f16_to_f32(std::uint16_t);
/// x in f32, inexact values to the neighbour with an odd last bit: rounding that to 16 bits gives x rounded once
/// (Boldo & Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
constexpr float f64_to_f32_odd(double x) {
  const auto near = static_cast<float>(x);
  const auto bits = std::bit_cast<std::uint32_t>(near);
  if (static_cast<double>(near) == x || x != x || (bits & 1u)) return near;
  const bool outward = x < 0 ? near < x : near > x;
  return std::bit_cast<float>(outward ? bits - 1u : bits + 1u);
}
constexpr std::uint16_t f32_to_bf16(float x) {
  const auto u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 0x40u);  // NaN: keep, make quiet
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
constexpr float bf16_to_f32(std::uint16_t b) { return std::bit_cast<float>(static_cast<std::uint32_t>(b) << 16); }
}  // namespace detail

/// IEEE half: 1 sign, 5 exponent, 10 mantissa bits. Trivially copyable; the bits themselves.
struct f16_t {
  std::uint16_t bits;
  f16_t() = default;
  explicit f16_t(float x) : bits(detail::f32_to_f16(x)) {}
  template <std::same_as<double> D> explicit f16_t(D x) : f16_t(detail::f64_to_f32_odd(x)) {}  // one rounding
  explicit operator float() const { return detail::f16_to_f32(bits); }
  template <std::same_as<double> D> explicit operator D() const { return detail::f16_to_f32(bits); }
  friend constexpr bool operator==(f16_t, f16_t) = default;  // of bits
};

/// bfloat16: the upper half of an f32. Trivially copyable; the bits themselves.
struct bf16_t {
  std::uint16_t bits;
  bf16_t() = default;
  explicit constexpr bf16_t(float x) : bits(detail::f32_to_bf16(x)) {}
  template <std::same_as<double> D> explicit constexpr bf16_t(D x) : bf16_t(detail::f64_to_f32_odd(x)) {}  // one rounding
  explicit constexpr operator float() const { return detail::bf16_to_f32(bits); }
  template <std::same_as<double> D> explicit constexpr operator D() const { return detail::bf16_to_f32(bits); }
  friend constexpr bool operator==(bf16_t, bf16_t) = default;  // of bits
};
static_assert(sizeof(f16_t) == 2 && sizeof(bf16_t) == 2);

template <class T> struct DtypeOf;
template <> struct DtypeOf<float> { static constexpr Dtype value = Dtype::f32; };
template <> struct DtypeOf<f16_t> { static constexpr Dtype value = Dtype::f16; };
template <> struct DtypeOf<bf16_t> { static constexpr Dtype value = Dtype::bf16; };
template <> struct DtypeOf<double> { static constexpr Dtype value = Dtype::f64; };
template <> struct DtypeOf<std::int32_t> { static constexpr Dtype value = Dtype::i32; };
template <> struct DtypeOf<std::int64_t> { static constexpr Dtype value = Dtype::i64; };
template <> struct DtypeOf<std::uint8_t> { static constexpr Dtype value = Dtype::u8; };
template <> struct DtypeOf<bool> { static constexpr Dtype value = Dtype::boolean; };
/// The Dtype of a C++ scalar type.
template <class T> inline constexpr Dtype dtype_of = DtypeOf<T>::value;

}  // namespace mezzo
