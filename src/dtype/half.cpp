// half.cpp - f16 conversions in integers, exact on every machine and in every rounding mode.
#include <mezzo/dtype.h>

namespace mezzo::detail {

std::uint16_t f32_to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);  // NaN: quiet, with the upper bits of its payload
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // from 65520, half way between the largest number and 2^16: Inf
  } else if (magnitude >= 0x38800000u) {
    half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;  // from 2^-14: rebias, round; a carry moves into the exponent
  } else if (magnitude >= 0x33000000u) {                                        // from 2^-25: the mantissa in units of 2^-24
    const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const std::uint32_t shift = 126u - (magnitude >> 23);  // 14 ... 24
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u), middle = 1u << (shift - 1u);
    half = mantissa >> shift;
    half += static_cast<std::uint32_t>(rest > middle || (rest == middle && (half & 1u)));
  }
  return static_cast<std::uint16_t>(sign | half);
}

float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, mantissa = h & 0x3ffu;
  std::uint32_t magnitude = 0;
  if (exponent == 0x1fu) {
    magnitude = 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u);  // Inf; NaN: quiet
  } else if (exponent != 0) {
    magnitude = (exponent + 112u) << 23 | mantissa << 13;
  } else {
    magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);  // subnormal or zero: exact in f32
  }
  return std::bit_cast<float>(sign | magnitude);
}

}  // namespace mezzo::detail
