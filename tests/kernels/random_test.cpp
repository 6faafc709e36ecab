// random_test.cpp - uniform, normal and dropout against core/philox.h, bit for bit on every instruction set.
#include <cstdio>

#include <mezzo/runtime.h>

#include "core/philox.h"
#include "guarded.h"
#include "kernels/kernels.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr std::uint64_t kSeed = 0x0123456789abcdefull;
const std::uint64_t kOffsets[] = {0, 12345, (1ull << 32) - 7, ~0ull - 3};  // counters that carry into their upper half, and wrap

std::uint32_t word(std::uint64_t offset, std::int64_t i) { return philox::block(kSeed, offset + static_cast<std::uint64_t>(i / 4))[i % 4]; }

double normal_number(std::uint64_t offset, std::int64_t i) {
  const auto b = philox::block(kSeed, offset + static_cast<std::uint64_t>(i / 4));
  const std::int64_t first = i % 4 / 2 * 2;
  return philox::normal_pair(b[first], b[first + 1])[i % 2];
}

template <class T> T from_f32(float x) { return static_cast<T>(x); }

template <class T> void check_uniform_normal() {
  constexpr int kBits = std::is_same_v<T, bf16_t> ? 8 : std::is_same_v<T, f16_t> ? 11 : 24;  // significant ones
  for (const std::uint64_t offset : kOffsets) {
    for (const std::int64_t n : lengths({1023, 1024, 1025, 40'003})) {
      CAPTURE(n);
      Guarded<T> u(n, n % 3), z(n, n % 5);
      uniform(cpu_queue(), dtype_of<T>, u.data(), n, kSeed, offset);
      normal(cpu_queue(), dtype_of<T>, z.data(), n, 0.25, 0.02, kSeed, offset);
      bool all = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const T want_u = from_f32<T>(philox::uniform<kBits>(word(offset, i)));
        all = all && static_cast<double>(static_cast<float>(want_u)) < 1;
        const double exact = 0.02 * normal_number(offset, i) + 0.25;
        T want_z;
        if constexpr (std::is_same_v<T, double>) want_z = exact;
        else want_z = from_f32<T>(static_cast<float>(exact));
        all = all && std::memcmp(&u[i], &want_u, sizeof(T)) == 0 && std::memcmp(&z[i], &want_z, sizeof(T)) == 0;
      }
      CHECK(all);
      CHECK((u.intact() && z.intact()));
    }
  }
}

template <class T> void check_dropout() {
  for (const double p : {0.0, 0.1, 0.5, 0.75, 1 - 0x1p-24, 1.0, 0x1p-24, 0x1.8p-24}) {
    for (const std::int64_t n : lengths({1023, 1024, 1025, 40'003})) {
      CAPTURE(p);
      CAPTURE(n);
      const Guarded<T> x(n, n % 3, Normals(static_cast<unsigned>(n)));
      Guarded<T> y(n, n % 4), in_place = x;
      dropout(cpu_queue(), dtype_of<T>, x.data(), y.data(), n, p, kSeed, 77);
      dropout(cpu_queue(), dtype_of<T>, in_place.data(), in_place.data(), n, p, kSeed, 77);
      std::vector<double> want;
      for (std::int64_t i = 0; i < n; ++i) want.push_back(philox::uniform(word(77, i)) < p ? 0 : value(x[i]) / (1 - p));
      const double f32_part = std::is_same_v<T, double> ? 0x1p-52 : 2 * kUnit32;
      check_close("dropout", y, want, [&](std::int64_t i) { return (unit<T>() + f32_part) * std::abs(want[i]) + tiny<T>(); });
      bool zeros = true;
      for (std::int64_t i = 0; i < n; ++i) zeros = zeros && (want[i] != 0 || value(y[i]) == 0);
      CHECK(zeros);
      CHECK(std::memcmp(y.data(), in_place.data(), n * sizeof(T)) == 0);
    }
  }
}

}  // namespace

TEST_CASE("uniform, normal: the bits of the scalar definition, rounded to each dtype; none is 1") {
  check_uniform_normal<float>();
  check_uniform_normal<f16_t>();
  check_uniform_normal<bf16_t>();
  check_uniform_normal<double>();
}

TEST_CASE("dropout: keeps what the definition keeps, in place too") {
  check_dropout<float>();
  check_dropout<f16_t>();
  check_dropout<bf16_t>();
  check_dropout<double>();
}

TEST_CASE("dropout: a dropped Inf or NaN is 0") {
  const Guarded<float> x(4096, 0, [] { return std::numeric_limits<double>::infinity(); });
  Guarded<float> y(4096);
  dropout(cpu_queue(), f32, x.data(), y.data(), 4096, 0.5, 1, 0);
  std::int64_t zeros = 0;
  for (std::int64_t i = 0; i < 4096; ++i) {
    zeros += y[i] == 0;
    CHECK((y[i] == 0 || std::isinf(y[i])));
  }
  CHECK(std::abs(zeros - 2048) < 4 * 32);  // four standard deviations
}

TEST_CASE("uniform, normal, dropout: the same bits with any number of threads") {
  const int before = num_threads();
  const std::int64_t n = 200'003;
  const Guarded<float> x(n, 0, Normals(1));
  Guarded<float> u1(n), z1(n), d1(n);
  for (const int threads : {1, 2, 3, 5}) {
    set_num_threads(threads);
    Guarded<float> u(n), z(n), d(n);
    uniform(cpu_queue(), f32, u.data(), n, 3, 4);
    normal(cpu_queue(), f32, z.data(), n, 0, 1, 3, 4);
    dropout(cpu_queue(), f32, x.data(), d.data(), n, 0.3, 3, 4);
    if (threads == 1) u1 = u, z1 = z, d1 = d;
    CHECK((u.same_bits(u1) && z.same_bits(z1) && d.same_bits(d1)));
  }
  set_num_threads(before);
}
