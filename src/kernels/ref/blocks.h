// blocks.h - one block of each format to numbers and back, element by element. T: the type of arithmetic; double is exact.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "dtype/dispatch.h"
#include "kernels/blocks.h"

namespace mezzo::kernels::ref {

template <class T> T half_at(const std::uint8_t* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return static_cast<T>(detail::f16_to_f32(bits));
}

struct ScaleAndMin {
  int scale, min;
};
/// Entry j of the eight pairs of 6-bit numbers in 12 bytes (Q4_K, Q5_K): the first four pairs lie in the low six bits of bytes 0-3 and 4-7; of
/// the others, bytes 8-11 have the low four bits, and the two high bits of bytes 0-7 the rest.
inline ScaleAndMin scale_and_min(const std::uint8_t* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | (s[j - 4] >> 6) << 4, (s[j + 4] >> 4) | (s[j] >> 6) << 4};
}

/// y (facts.elements) of one block.
template <class T> void dequantize_block(Format format, const std::uint8_t* b, T* y) {
  const auto bit = [](const std::uint8_t* bits, int i) { return bits[i / 8] >> i % 8 & 1; };
  const auto nibble = [](const std::uint8_t* q, int i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; };  // of 32 elements in 16 bytes
  switch (format) {
    case Format::q8_0:
      for (int i = 0; i < 32; ++i) y[i] = half_at<T>(b) * T(static_cast<std::int8_t>(b[2 + i]));
      return;
    case Format::q4_0:
      for (int i = 0; i < 32; ++i) y[i] = half_at<T>(b) * T(nibble(b + 2, i) - 8);
      return;
    case Format::q4_1:
      for (int i = 0; i < 32; ++i) y[i] = half_at<T>(b) * T(nibble(b + 4, i)) + half_at<T>(b + 2);
      return;
    case Format::q5_0:
      for (int i = 0; i < 32; ++i) y[i] = half_at<T>(b) * T((nibble(b + 6, i) | bit(b + 2, i) << 4) - 16);
      return;
    case Format::q5_1:
      for (int i = 0; i < 32; ++i) y[i] = half_at<T>(b) * T(nibble(b + 8, i) | bit(b + 4, i) << 4) + half_at<T>(b + 2);
      return;
    case Format::q4_k:
    case Format::q5_k: {
      const std::uint8_t *high = b + 16, *q = b + (format == Format::q5_k ? 48 : 16);
      for (int i = 0; i < 256; ++i) {
        const int sub = i / 32;
        const ScaleAndMin s = scale_and_min(b + 4, sub);
        int value = sub % 2 == 0 ? q[sub / 2 * 32 + i % 32] & 15 : q[sub / 2 * 32 + i % 32] >> 4;
        if (format == Format::q5_k) value |= (high[i % 32] >> sub & 1) << 4;
        y[i] = half_at<T>(b) * T(s.scale) * T(value) - half_at<T>(b + 2) * T(s.min);
      }
      return;
    }
    case Format::q6_k:
      for (int i = 0; i < 256; ++i) {
        const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
        const int low = b[half * 64 + quarter % 2 * 32 + l], high = b[128 + half * 32 + l] >> 2 * quarter & 3;
        const int value = ((quarter < 2 ? low & 15 : low >> 4) | high << 4) - 32;
        y[i] = half_at<T>(b + 208) * T(static_cast<std::int8_t>(b[192 + i / 16])) * T(value);
      }
      return;
    case Format::nf4:
      for (int i = 0; i < 64; ++i) y[i] = half_at<T>(b) * T(kNormalFloat[i < 32 ? b[2 + i] & 15 : b[2 + i - 32] >> 4]);
      return;
    case Format::count: break;
  }
}

/// 1 / d, or 0 where that is not a number to multiply with.
inline float reciprocal_or_zero(float d) { return d != 0 && std::isfinite(1 / d) ? 1 / d : 0; }

/// Half way from NF4's level `code` to the next.
constexpr float normal_float_boundary(int code) {
  return static_cast<float>((static_cast<double>(kNormalFloat[code]) + static_cast<double>(kNormalFloat[code + 1])) / 2);
}

inline void quantize_nf4(const float* x, std::uint8_t* b) {
  float d = 0;
  for (int i = 0; i < 64; ++i) d = std::max(d, std::abs(x[i]));
  const std::uint16_t bits = detail::f32_to_f16(d);
  std::memcpy(b, &bits, sizeof bits);
  const float inverse = reciprocal_or_zero(detail::f16_to_f32(bits));
  const auto code = [&](float value) {
    int c = 0;
    while (c < 15 && value * inverse > normal_float_boundary(c)) ++c;
    return c;
  };
  for (int i = 0; i < 32; ++i) b[2 + i] = static_cast<std::uint8_t>(code(x[i]) | code(x[i + 32]) << 4);
}

/// One block of x (facts.elements), finite.
inline void quantize_block(Format format, const float* x, std::uint8_t* b) {
  if (format == Format::nf4) return quantize_nf4(x, b);
  const float* largest = std::max_element(x, x + 32, [](float a, float c) { return std::abs(a) < std::abs(c); });
  const float d = format == Format::q8_0 ? std::abs(*largest) / 127 : *largest / -8, inverse = reciprocal_or_zero(d);
  const std::uint16_t bits = detail::f32_to_f16(d);
  std::memcpy(b, &bits, sizeof bits);
  if (format == Format::q8_0) {
    for (int i = 0; i < 32; ++i) b[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x[i] * inverse)));
    return;
  }
  const auto level = [&](float value) { return std::min(15, static_cast<int>(value * inverse + 8.5f)); };
  for (int i = 0; i < 16; ++i) b[2 + i] = static_cast<std::uint8_t>(level(x[i]) | level(x[i + 16]) << 4);
}

}  // namespace mezzo::kernels::ref
