// ranges_test.cpp - counts of a tensor's values, exact; and rounding to narrow formats against the tables of their specifications.
#include <array>
#include <set>

#include "guarded.h"
#include "kernels/ranges.h"
#include "kernels/ref/ranges.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

const NumberFormat& format(std::string_view name) {
  for (const auto& f : kNumberFormats)
    if (f.name == name) return f;
  FAIL("no such format");
  return kNumberFormats[0];
}

/// All magnitudes of a format's elements, built from codes as its specification decodes them; those above `max` are its NaNs (and Inf).
std::set<double> elements(const NumberFormat& f) {
  std::set<double> all;
  if (f.exponent_bits == 0) {  // MXINT8: two's complement, value / 64
    for (int code = 0; code <= 127; ++code) all.insert(code / 64.0);
    return all;
  }
  for (int e = 0; e < 1 << f.exponent_bits; ++e)
    for (int m = 0; m < 1 << f.mantissa_bits; ++m) {
      const double fraction = std::ldexp(m, -f.mantissa_bits);
      const double v = e == 0 ? std::ldexp(fraction, 1 - f.bias) : std::ldexp(1 + fraction, e - f.bias);
      if (v <= f.max) all.insert(v);
    }
  return all;
}

/// The element nearest to x: of two equally near ones that whose place in the list is even, which is its last bit.
double nearest(const std::set<double>& all, double x, const NumberFormat& f) {
  const double a = std::fabs(x);
  auto above = all.lower_bound(a);
  if (above == all.end()) {
    const double max = *all.rbegin(), half = (max - *std::prev(all.end(), 2)) / 2;
    const bool odd = (all.size() - 1) % 2 == 1;
    return std::copysign(f.infinite && (a > max + half || (a == max + half && odd)) ? HUGE_VAL : max, x);
  }
  if (above == all.begin()) return std::copysign(*above, x);
  const auto below = std::prev(above);
  const double up = *above - a, down = a - *below;
  const bool take_above = up < down || (up == down && std::distance(all.begin(), above) % 2 == 0);
  return std::copysign(take_above ? *above : *below, x);
}

template <class T> RangeStats counted(const Guarded<T>& x) {
  RangeStats s;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double v = value(x[i]), a = std::fabs(v);
    ++s.count;
    if (std::isnan(v)) ++s.nan;
    else if (std::isinf(v)) ++s.inf;
    else if (v == 0) ++s.zero;
    else {
      ++s.exponents[static_cast<std::size_t>(std::max(std::ilogb(a), -127) + 127)];
      s.largest = std::max(s.largest, static_cast<float>(a));
      s.smallest = std::min(s.smallest, static_cast<float>(a));
    }
  }
  return s;
}

template <class T> void check_ranges(const Guarded<T>& x) {
  CAPTURE(x.size());
  RangeStats got;
  range_stats(cpu_queue(), dtype_of<T>, x.data(), x.size(), &got);
  const RangeStats want = counted(x);
  CHECK(got.count == want.count);
  CHECK(got.zero == want.zero);
  CHECK(got.inf == want.inf);
  CHECK(got.nan == want.nan);
  CHECK(got.largest == want.largest);
  CHECK(got.smallest == want.smallest);
  CHECK(got.exponents == want.exponents);
}

template <class T> void check_ranges() {
  for (std::int64_t n : {0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 511, 512, 513, 1000, 131072, 131073}) {
    Guarded<T> x(n, n % 3, Normals(static_cast<unsigned>(n), 1e-3));
    check_ranges(x);
    for (std::int64_t i = 0; i < n; i += 3) x[i] = rounded<T>(i % 2 ? 0.0 : -0.0);
    for (std::int64_t i = 1; i < n; i += 5) x[i] = rounded<T>(i % 2 ? kInf : -kInf);
    for (std::int64_t i = 2; i < n; i += 7) x[i] = rounded<T>(kNan);
    for (std::int64_t i = 3; i < n; i += 11) x[i] = rounded<T>(format_info(dtype_of<T>).min_subnormal * (i % 4));
    for (std::int64_t i = 4; i < n; i += 13) x[i] = rounded<T>(-format_info(dtype_of<T>).max);
    check_ranges(x);
  }
  Guarded<T> only(20, 0, [] { return std::numeric_limits<double>::quiet_NaN(); });
  check_ranges(only);
}

}  // namespace

TEST_CASE("range_stats: counts, extremes and exponents of each dtype are exact") {
  check_ranges<float>();
  check_ranges<f16_t>();
  check_ranges<bf16_t>();
}

TEST_CASE("number formats: largest and smallest numbers are those of the specifications") {
  const std::array<std::pair<const char*, std::array<double, 3>>, 9> published{{
      // largest, smallest normal, smallest subnormal: IEEE 754; OFP8 v1.0 table 1; MX v1.0 tables 2 to 5
      {"fp16", {65504, 0x1p-14, 0x1p-24}},
      {"bf16", {0x1.fep127, 0x1p-126, 0x1p-133}},
      {"fp8_e4m3", {448, 0x1p-6, 0x1p-9}},
      {"fp8_e5m2", {57344, 0x1p-14, 0x1p-16}},
      {"mxfp8_e4m3", {448, 0x1p-6, 0x1p-9}},
      {"mxfp8_e5m2", {57344, 0x1p-14, 0x1p-16}},
      {"mxfp6_e3m2", {28, 0.25, 0.0625}},
      {"mxfp6_e2m3", {7.5, 1, 0.125}},
      {"mxfp4_e2m1", {6, 1, 0.5}},
  }};
  for (const auto& [title, wanted] : published) {
    const auto name = title;
    const NumberFormat& f = format(name);
    CAPTURE(name);
    CHECK(f.max == wanted[0]);
    CHECK(std::ldexp(1.0, f.min_exponent()) == wanted[1]);
    CHECK(std::ldexp(1.0, f.min_exponent() - f.mantissa_bits) == wanted[2]);
    if (f.mantissa_bits <= 3) CHECK(*elements(f).rbegin() == f.max);
  }
}

TEST_CASE("rounding: every element stays, and what lies between goes to the nearest, ties to even") {
  for (const auto& f : kNumberFormats) {
    if (f.block || f.mantissa_bits > 3) continue;  // scaled blocks and 16 bits: below
    CAPTURE(f.name);
    const auto all = elements(f);
    std::vector<float> x;
    for (auto i = all.begin(); i != all.end(); ++i) {
      const auto v = static_cast<float>(*i), next = static_cast<float>(std::next(i) == all.end() ? f.max * 1.5 : *std::next(i));
      for (const float between :
           {v, v + (next - v) / 2, std::nextafter(v + (next - v) / 2, 0.0f), std::nextafter(v + (next - v) / 2, kInf), v + (next - v) / 4})
        x.push_back(between), x.push_back(-between);
    }
    for (const float v : {1e30f, 3e38f, kInf, 1e-30f, 1e-44f, 0.0f}) x.push_back(v), x.push_back(-v);
    const auto n = static_cast<std::int64_t>(x.size());
    std::vector<float> y(x.size());
    ConversionStats stats;
    convert_to_format(cpu_queue(), f, x.data(), y.data(), n, &stats);
    ConversionStats want;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = std::isinf(x[i]) ? (f.infinite ? x[i] : std::copysign(f.max, x[i])) : nearest(all, x[i], f);
      CAPTURE(x[i]);
      CHECK(static_cast<double>(y[i]) == expected);
      CHECK(std::signbit(y[i]) == std::signbit(x[i]));
      CHECK(ref::round_element(f, x[i]) == expected);
      if (std::isinf(x[i])) continue;
      ++want.finite;
      want.nonzero += x[i] != 0;
      want.flushed += x[i] != 0 && expected == 0;
      want.subnormal += expected != 0 && std::fabs(expected) < std::ldexp(1.0, f.min_exponent());
      want.noise += std::pow(static_cast<double>(y[i]) - x[i], 2);
    }
    CHECK(stats.finite == want.finite);
    CHECK(stats.nonzero == want.nonzero);
    CHECK(stats.flushed == want.flushed);
    CHECK(stats.subnormal == want.subnormal);
    CHECK(stats.noise == doctest::Approx(want.noise).epsilon(1e-12));
    std::fill(x.begin(), x.end(), kNan);
    convert_to_format(cpu_queue(), f, x.data(), y.data(), n, nullptr);
    CHECK(std::all_of(y.begin(), y.end(), [](float v) { return std::isnan(v); }));
  }
}

TEST_CASE("rounding to fp16 and bf16 is the conversion to those dtypes") {
  Normals normal(3);
  std::vector<float> x;
  for (int e = -150; e < 128; ++e)
    for (int i = 0; i < 20; ++i) x.push_back(std::ldexp(static_cast<float>(normal()), e));
  for (const float v : {65504.0f, 65519.99f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, kInf, 0.0f, 3.4e38f}) x.push_back(v), x.push_back(-v);
  std::vector<float> y(x.size());
  ConversionStats stats;
  convert_to_format(cpu_queue(), format("fp16"), x.data(), y.data(), static_cast<std::int64_t>(x.size()), &stats);
  std::int64_t saturated = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(y[i] == static_cast<float>(f16_t(x[i])));
    saturated += std::isfinite(x[i]) && std::isinf(y[i]);
  }
  CHECK(stats.saturated == saturated);
  convert_to_format(cpu_queue(), format("bf16"), x.data(), y.data(), static_cast<std::int64_t>(x.size()), &stats);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == static_cast<float>(bf16_t(x[i])));
}

TEST_CASE("blocks: each has the power of two that brings its largest magnitude to the format's top binade") {
  for (const auto& f : kNumberFormats) {
    if (!f.block) continue;
    CAPTURE(f.name);
    for (const std::int64_t n : {1, 31, 32, 33, 100, 40000}) {
      Guarded<float> x(n, 0, Normals(static_cast<unsigned>(n))), y(n);
      for (std::int64_t i = 0; i < n; ++i) x[i] = std::ldexp(x[i], static_cast<int>(i / 32 * 7 % 200) - 100);
      if (n > 64) std::fill(x.data() + 32, x.data() + 64, 0.0f);
      ConversionStats stats;
      convert_to_format(cpu_queue(), f, x.data(), y.data(), n, &stats);
      CHECK(y.intact());
      std::int64_t flushed = 0;
      for (std::int64_t b = 0; b < n; b += f.block) {
        const std::int64_t end = std::min<std::int64_t>(n, b + f.block);
        double largest = 0;
        for (std::int64_t i = b; i < end; ++i) largest = std::max(largest, std::fabs(value(x[i])));
        const int k = ref::block_exponent(f, largest);
        for (std::int64_t i = b; i < end; ++i) {
          const double expected = std::ldexp(ref::round_element(f, std::ldexp(value(x[i]), -k)), k);
          CAPTURE(i);
          CHECK(value(y[i]) == expected);
          flushed += x[i] != 0 && expected == 0;
        }
      }
      CHECK(stats.flushed == flushed);
      CHECK(stats.finite == n);
    }
    std::vector<float> x(64, 1.0f), y(64);
    x[40] = kNan;
    convert_to_format(cpu_queue(), f, x.data(), y.data(), 64, nullptr);
    CHECK(y[0] == 1.0f);
    CHECK(std::isnan(y[32]));
    CHECK(std::isnan(y[63]));
  }
}
