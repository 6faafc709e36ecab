// ranges.h - what a tensor's values are like, and what they would become in another number format.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// Counts over elements, exact. exponents[e] counts finite ones whose f32 exponent field is e: 2^(e - 127) <= |x| < 2^(e - 126) for e in [1, 254],
/// f32's subnormals for e = 0. Zeros, Inf and NaN are not in it.
struct RangeStats {
  std::int64_t count = 0, zero = 0, inf = 0, nan = 0;
  float largest = 0;                                        ///< |x|, of finite elements; 0 without any
  float smallest = std::numeric_limits<float>::infinity();  ///< |x|, of finite nonzero elements; Inf without any
  std::array<std::int64_t, 255> exponents{};
  RangeStats& operator+=(const RangeStats&);
};
/// Of x (n; f32, f16 or bf16).
void range_stats(Queue&, Dtype, const void* x, std::int64_t n, RangeStats*);

/// A binary floating-point format, or, with `block`, a format of OCP's Microscaling specification (v1.0): elements of the format given, and for
/// each block of that many a scale 2^k, k = floor(log2(largest |x|)) - floor(log2(max)), held in [-127, 127].
struct NumberFormat {
  std::string_view name;
  int exponent_bits, mantissa_bits;  ///< exponent_bits 0: fixed point, multiples of 2^-mantissa_bits
  int bias;
  double max;     ///< largest finite magnitude
  bool infinite;  ///< beyond it (after rounding) lies Inf; else conversion stops at max
  int block = 0;  ///< elements that share a scale
  constexpr int min_exponent() const { return exponent_bits == 0 ? 0 : 1 - bias; }  ///< of normal numbers
};
// clang-format off
/// IEEE 754's binary16; bfloat16; FP8 as in OCP's 8-bit Floating Point Specification (v1.0), conversions saturating; Microscaling formats.
inline constexpr std::array kNumberFormats{
    NumberFormat{"fp16",        5, 10,  15, 65504,          true},
    NumberFormat{"bf16",        8,  7, 127, 0x1.fep127,     true},
    NumberFormat{"fp8_e4m3",    4,  3,   7, 448,            false},
    NumberFormat{"fp8_e5m2",    5,  2,  15, 57344,          false},
    NumberFormat{"mxfp8_e4m3",  4,  3,   7, 448,            false, 32},
    NumberFormat{"mxfp8_e5m2",  5,  2,  15, 57344,          false, 32},
    NumberFormat{"mxfp6_e3m2",  3,  2,   3, 28,             false, 32},
    NumberFormat{"mxfp6_e2m3",  2,  3,   1, 7.5,            false, 32},
    NumberFormat{"mxfp4_e2m1",  2,  1,   1, 6,              false, 32},
    NumberFormat{"mxint8",      0,  6,   0, 1.984375,       false, 32},
};
// clang-format on

/// What a conversion does to finite elements: how many nonzero ones become zero, how many results are subnormal, how many lie beyond the largest
/// finite number; and the energies of what goes in and of the error, without those that become Inf.
struct ConversionStats {
  std::int64_t finite = 0, nonzero = 0, flushed = 0, subnormal = 0, saturated = 0;
  double signal = 0, noise = 0;  ///< sums of x^2 and (y - x)^2
  ConversionStats& operator+=(const ConversionStats&);
};
/// y (n; f32) = x (n; f32) rounded to the format, ties to even; NaN stays NaN, Inf stays Inf where the format has one and becomes max elsewhere.
/// y == x allowed. A block that holds NaN or Inf becomes NaN, as its scale does. stats (null: not wanted) is overwritten.
void convert_to_format(Queue&, const NumberFormat&, const float* x, float* y, std::int64_t n, ConversionStats* stats);

}  // namespace mezzo::kernels
