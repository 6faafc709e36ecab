// test_philox.cpp - known answers, normal numbers against the standard library in long double, moments, the generator.
#include <array>
#include <cmath>
#include <cstdlib>
#include <vector>

#include <doctest/doctest.h>

#include <mezzo/random.h>

#include "core/philox.h"

using namespace mezzo;

namespace {
using Words = std::array<std::uint32_t, 4>;
constexpr std::uint64_t u64(std::uint32_t low, std::uint32_t high) { return std::uint64_t{high} << 32 | low; }
}  // namespace

TEST_CASE("Philox4x32-10 gives the answers of the Random123 distribution (kat_vectors)") {
  CHECK(philox::block(0, 0, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox::block(~0ull, ~0ull, ~0ull) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox::block(u64(0xa4093822, 0x299f31d0), u64(0x243f6a88, 0x85a308d3), u64(0x13198a2e, 0x03707344)) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("normal_pair is Box-Muller to 1e-12, edges included") {
  std::vector<std::array<std::uint32_t, 2>> inputs;
  for (std::uint32_t a : {0u, 1u, 2u, 0x7fffffffu, 0x80000000u, 0xb504f333u, 0xb504f334u, 0xfffffffeu, 0xffffffffu})
    for (std::uint32_t k = 0; k < 8; ++k)  // around each eighth of a turn
      for (std::int32_t d : {-1, 0, 1}) inputs.push_back({a, (k << 29) + static_cast<std::uint32_t>(d)});
  for (std::uint64_t i = 0; i < 100000; ++i) {
    const auto b = philox::block(7, i);
    inputs.push_back({b[0], b[1]});
  }
  long double worst = 0;
  for (const auto& [u0, u1] : inputs) {
    const long double radius = std::sqrt(-2 * std::log((static_cast<long double>(u0) + 0.5L) * 0x1p-32L));
    const long double angle = 2 * 3.14159265358979323846264338327950288L * static_cast<long double>(u1) * 0x1p-32L;
    const auto z = philox::normal_pair(u0, u1);
    const long double error = std::max(std::fabs(z[0] - radius * std::cos(angle)), std::fabs(z[1] - radius * std::sin(angle)));
    CHECK(error < 1e-12L);
    worst = std::max(worst, error);
  }
  MESSAGE("largest error ", static_cast<double>(worst));
}

TEST_CASE("normal_pair near radius 0 is right relative to itself") {
  for (std::uint32_t u0 : {0xffffffffu, 0xfffffff0u, 0xffff0000u}) {
    const long double x = (static_cast<long double>(u0) + 0.5L) * 0x1p-32L;
    const long double radius = std::sqrt(-2 * std::log1p(x - 1));
    CHECK(std::fabs(philox::normal_pair(u0, 0)[0] / radius - 1) < 1e-14L);
    CHECK(philox::normal_pair(u0, 0)[1] == 0);
  }
}

TEST_CASE("moments of normal and uniform numbers") {
  // Each bound is five standard deviations of the estimator, n = 2^20: the moments of a standard normal are 0, 1, 0, 3 and its
  // powers' variances 1, 2, 15, 96.
  constexpr int n = 1 << 20;
  Generator g(42);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, u1 = 0, u2 = 0, lag = 0, before = 0;
  for (int i = 0; i < n; ++i) {
    const double z = g.normal(), u = g.uniform();
    m1 += z;
    m2 += z * z;
    m3 += z * z * z;
    m4 += z * z * z * z;
    lag += z * before;
    before = z;
    CHECK((u >= 0 && u < 1));
    u1 += u;
    u2 += u * u;
  }
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::fabs(m1 / n) < 5 / root);
  CHECK(std::fabs(m2 / n - 1) < 5 * std::sqrt(2) / root);
  CHECK(std::fabs(m3 / n) < 5 * std::sqrt(15) / root);
  CHECK(std::fabs(m4 / n - 3) < 5 * std::sqrt(96) / root);
  CHECK(std::fabs(lag / n) < 5 / root);
  CHECK(std::fabs(u1 / n - 0.5) < 5 * std::sqrt(1.0 / 12) / root);
  CHECK(std::fabs(u2 / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45) / root);
}

TEST_CASE("uniform of 32 bits is exact and below 1") {
  CHECK(philox::uniform(0) == 0);
  CHECK(philox::uniform(255) == 0);
  CHECK(philox::uniform(256) == 0x1p-24f);
  CHECK(philox::uniform(0xffffffffu) == 1 - 0x1p-24f);
}

TEST_CASE("a generator is its seed and its counter") {
  Generator a(5), b(5);
  CHECK(a == b);
  for (int i = 0; i < 10; ++i) a.normal();
  CHECK(a.counter() == 10);
  CHECK(a != b);
  const double next = a.uniform();
  b.seek(10);
  CHECK(b.uniform() == next);
  CHECK(Generator(5, 10).uniform() == next);
  CHECK(Generator(6, 10).uniform() != next);
  CHECK(b.reserve(100) == 11);
  CHECK(b.counter() == 111);
  CHECK(a.next() == philox::block(5, 11));
}

TEST_CASE("below is uniform and in range") {
  Generator g(3);
  CHECK_THROWS_AS(g.below(0), Error);
  for (int i = 0; i < 10; ++i) CHECK(g.below(1) == 0);
  std::array<int, 7> counts{};
  constexpr int n = 70000;
  for (int i = 0; i < n; ++i) ++counts[g.below(7)];
  double chi = 0;
  for (int c : counts) chi += (c - n / 7.0) * (c - n / 7.0) / (n / 7.0);
  CHECK(chi < 30);  // 6 degrees of freedom: 30 has p = 4e-5
  // Of n = 3/4 of 2^64 a quarter of the draws must be rejected: kept, they would make every third result twice as likely.
  const std::uint64_t large = 3ull << 62;
  std::array<int, 3> rest{};
  for (int i = 0; i < 30000; ++i) {
    const auto x = g.below(large);
    CHECK(x < large);
    ++rest[x % 3];
  }
  for (int r : rest) CHECK(std::abs(r - 10000) < 5 * 82);  // five standard deviations
}

TEST_CASE("manual_seed restarts the default generator") {
  manual_seed(9);
  CHECK(default_generator() == Generator(9));
  const double x = default_generator().normal();
  manual_seed(9);
  CHECK(default_generator().normal() == x);
  manual_seed(0);
}
