// test_conversions.cpp - f16 and bf16 against exact arithmetic: every 16-bit value, every f32 exponent with edge mantissas.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include <mezzo/dtype.h>

using namespace mezzo;

namespace {

// A 16-bit format as its definition reads, in double, and rounding by search among all of its values. Shares nothing with the library.
class Oracle {
 public:
  Oracle(int exponent_bits, int mantissa_bits) : mantissa_bits_(mantissa_bits), infinity_(((1 << exponent_bits) - 1) << mantissa_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1;
    for (int bits = 0; bits <= infinity_; ++bits) {  // the last one: what Inf's bits would mean if the exponents went on
      const int exponent = bits >> mantissa_bits, mantissa = bits & ((1 << mantissa_bits) - 1);
      values_.push_back(exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                                      : std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits));
    }
  }

  int infinity() const { return infinity_; }
  bool is_nan(int bits) const { return (bits & 0x7fff) > infinity_; }
  int quiet_bit() const { return 1 << (mantissa_bits_ - 1); }

  double value(int bits) const {  // not of a NaN
    const int magnitude = bits & 0x7fff;
    const double v = magnitude == infinity_ ? std::numeric_limits<double>::infinity() : values_[static_cast<std::size_t>(magnitude)];
    return bits & 0x8000 ? -v : v;
  }

  // To nearest, ties to even; differences of neighbours are exact in double.
  int round(double x) const {
    const int sign = std::signbit(x) ? 0x8000 : 0;
    const double magnitude = std::fabs(x);
    const auto above = std::lower_bound(values_.begin(), values_.end(), magnitude);
    if (above == values_.end()) return sign | infinity_;
    int bits = static_cast<int>(above - values_.begin());
    if (*above != magnitude) {
      const double up = *above - magnitude, down = magnitude - *(above - 1);
      if (down < up || (down == up && bits % 2 != 0)) --bits;
    }
    return sign | bits;
  }

 private:
  int mantissa_bits_, infinity_;
  std::vector<double> values_;
};

template <class T> const Oracle& oracle() {
  static const Oracle o = std::is_same_v<T, f16_t> ? Oracle(5, 10) : Oracle(8, 7);
  return o;
}

// Every exponent with mantissas that sit on, beside and between rounding boundaries of both formats.
std::vector<float> edge_values() {
  std::vector<std::uint32_t> mantissas;
  for (int bit = 0; bit <= 23; ++bit)
    for (int d = -2; d <= 2; ++d) mantissas.push_back(((1u << bit) + static_cast<std::uint32_t>(d)) & 0x7fffffu);
  for (int kept : {7, 10})  // an even and an odd last kept bit, then just below, at and above a tie, and a carry into the exponent
    for (std::uint32_t top : {0u, 1u, 2u, 3u, (1u << kept) - 2, (1u << kept) - 1})
      for (int d = -1; d <= 1; ++d) {
        mantissas.push_back(((top << (23 - kept)) + (1u << (22 - kept)) + static_cast<std::uint32_t>(d)) & 0x7fffffu);
        mantissas.push_back(((top << (23 - kept)) + static_cast<std::uint32_t>(d)) & 0x7fffffu);
      }
  std::sort(mantissas.begin(), mantissas.end());
  mantissas.erase(std::unique(mantissas.begin(), mantissas.end()), mantissas.end());
  std::vector<float> out;
  for (std::uint32_t sign : {0u, 1u})
    for (std::uint32_t exponent = 0; exponent < 255; ++exponent)
      for (std::uint32_t m : mantissas) out.push_back(std::bit_cast<float>(sign << 31 | exponent << 23 | m));
  return out;
}

}  // namespace

TEST_CASE_TEMPLATE("all 65,536 values mean what the format says, and round-trip", T, f16_t, bf16_t) {
  const Oracle& o = oracle<T>();
  int wrong = 0;
  for (int bits = 0; bits < 65536; ++bits) {
    const T x = std::bit_cast<T>(static_cast<std::uint16_t>(bits));
    const auto f = static_cast<float>(x);
    if (o.is_nan(bits)) {
      wrong += !std::isnan(f) || T(f).bits != (bits | o.quiet_bit());
      wrong += T(static_cast<double>(f)).bits != (bits | o.quiet_bit());
    } else {
      wrong += static_cast<double>(f) != o.value(bits) || std::signbit(f) != (bits >= 0x8000) || T(f).bits != bits;
      wrong += T(static_cast<double>(f)).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("f32 to 16 bits is to nearest even on all exponents and edge mantissas", T, f16_t, bf16_t) {
  const Oracle& o = oracle<T>();
  for (float x : edge_values())
    if (T(x).bits != o.round(x)) FAIL_CHECK("x = ", std::bit_cast<std::uint32_t>(x), ": got ", T(x).bits, ", wanted ", o.round(x));
}

TEST_CASE_TEMPLATE("f32 to 16 bits around every boundary between neighbours", T, f16_t, bf16_t) {
  const Oracle& o = oracle<T>();
  int wrong = 0;
  for (int bits = 0; bits < o.infinity(); ++bits) {
    const float x = static_cast<float>(o.value(bits));
    const double next = bits + 1 < o.infinity() ? o.value(bits + 1) : 2 * o.value(bits) - o.value(bits - 1);
    const auto middle = static_cast<float>((x + next) / 2);  // exact, or for bf16's largest Inf
    for (float y : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, std::numeric_limits<float>::infinity())}) {
      if (std::isinf(y)) continue;
      wrong += T(y).bits != o.round(y);
      wrong += T(-y).bits != o.round(-static_cast<double>(y));
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("random bits", T, f16_t, bf16_t) {
  const Oracle& o = oracle<T>();
  std::mt19937_64 random(1);
  int wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isnan(x)) wrong += T(x).bits != (std::isinf(x) ? (o.infinity() | (x < 0 ? 0x8000 : 0)) : o.round(x));
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("f64 to 16 bits rounds once", T, f16_t, bf16_t) {
  const Oracle& o = oracle<T>();
  int wrong = 0;
  const auto check = [&](double x) { wrong += T(x).bits != o.round(x) || T(-x).bits != o.round(-x); };
  for (int bits = 0; bits < o.infinity(); ++bits) {
    // Around the middle of two neighbours, closer than f32 can tell: rounding by way of f32 would see a tie.
    const double next = bits + 1 < o.infinity() ? o.value(bits + 1) : 2 * o.value(bits) - o.value(bits - 1);
    const double middle = (o.value(bits) + next) / 2;
    for (double x : {std::nextafter(middle, 0.0), middle, std::nextafter(middle, 1e300), o.value(bits), std::nextafter(o.value(bits), 1e300)})
      check(x);
  }
  for (double x : {1e300, 5e-324, 1e-60, 0.0, 3.5e38, 3.4028235677973366e38, 0x1p-150, 0x1.8p-150}) check(x);
  CHECK(wrong == 0);
  CHECK(T(std::numeric_limits<double>::infinity()).bits == o.infinity());
  CHECK(o.is_nan(T(std::numeric_limits<double>::quiet_NaN()).bits));
}

TEST_CASE("the edges of f16") {
  CHECK(f16_t(65504.0f).bits == 0x7bff);
  CHECK(f16_t(65519.99f).bits == 0x7bff);
  CHECK(f16_t(65520.0f).bits == 0x7c00);
  CHECK(f16_t(-65520.0f).bits == 0xfc00);
  CHECK(f16_t(0x1p-25f).bits == 0);                        // the flush threshold is a tie, to even
  CHECK(f16_t(std::nextafter(0x1p-25f, 1.0f)).bits == 1);  // anything above is 2^-24
  CHECK(f16_t(std::nextafter(0x1p-25f, 0.0f)).bits == 0);
  CHECK(f16_t(-0x1p-26f).bits == 0x8000);
  CHECK(f16_t(0x1p-14f).bits == 0x0400);
  CHECK(f16_t(std::nextafter(0x1p-14f, 0.0f)).bits == 0x0400);  // rounds up into the normals
  CHECK(static_cast<float>(std::bit_cast<f16_t>(std::uint16_t{1})) == 0x1p-24f);
}

TEST_CASE("NaN stays NaN whatever its payload") {
  for (std::uint32_t payload : {1u, 0x1fffu, 0x2000u, 0xffffu, 0x10000u, 0x3fffffu, 0x400000u, 0x7fffffu})
    for (std::uint32_t sign : {0u, 0x80000000u}) {
      const auto x = std::bit_cast<float>(sign | 0x7f800000u | payload);
      CHECK(std::isnan(static_cast<float>(f16_t(x))));
      CHECK(std::isnan(static_cast<float>(bf16_t(x))));
      CHECK((f16_t(x).bits >> 15) == (sign >> 31));
      CHECK((bf16_t(x).bits >> 15) == (sign >> 31));
      CHECK((f16_t(x).bits & 0x0200) != 0);
      CHECK((bf16_t(x).bits & 0x0040) != 0);
    }
}

TEST_CASE("the scalar types are their bits") {
  static_assert(std::is_trivially_copyable_v<f16_t> && std::is_trivially_copyable_v<bf16_t>);
  static_assert(bf16_t(1.0f).bits == 0x3f80);
  static_assert(bf16_t(1.0).bits == 0x3f80);
  static_assert(double(bf16_t(1.5f)) == 1.5);
  CHECK(double(f16_t(0.1f)) == static_cast<double>(static_cast<float>(f16_t(0.1f))));
  CHECK(f16_t(1.0f).bits == 0x3c00);
  CHECK(f16_t(1).bits == 0x3c00);
  CHECK(f16_t(0.0f) != f16_t(-0.0f));  // equality is of bits
}
