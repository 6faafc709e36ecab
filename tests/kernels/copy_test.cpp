// copy_test.cpp - copies: every pair of dtypes rounded once, all 16-bit values, edges; contiguous, strided, broadcast, transposed; fill.
#include <bit>
#include <type_traits>

#include <mezzo/runtime.h>

#include "dtype/dispatch.h"
#include "kernels/kernels.h"
#include "spaces.h"
#include "ulp.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr Dtype kDtypes[] = {f32, f16, bf16, f64, i32, i64, u8, boolean};

template <class T> long double wide(T x) {  // exact: 64 bits of mantissa
  if constexpr (std::is_arithmetic_v<T>) return static_cast<long double>(x);
  else return static_cast<long double>(value(x));
}

/// The nearest number of a floating format, ties to even: multiples of the format's spacing at x.
template <class T> long double nearest(long double x) {
  const FormatInfo f = format_info(dtype_of<T>);
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  const int exponent = std::max(std::ilogb(x), std::ilogb(f.min_normal));
  const long double spacing = std::ldexp(static_cast<long double>(f.epsilon), exponent);
  const long double r = std::nearbyint(x / spacing) * spacing;
  return std::abs(r) > f.max ? std::copysign(std::numeric_limits<long double>::infinity(), x) : r;
}

/// Whether y is x converted to its dtype.
template <class To, class From> bool right(To y, From x) {
  const long double in = wide(x);
  if constexpr (std::is_same_v<To, bool>) return y == (in != 0);
  else if constexpr (std::is_integral_v<To> && std::is_integral_v<From>) return y == static_cast<To>(x);
  else if constexpr (std::is_integral_v<To>) {
    using Limits = std::numeric_limits<To>;
    const long double clamped = std::min<long double>(std::max<long double>(std::trunc(in), Limits::min()), Limits::max());
    return std::isnan(in) ? y == 0 : wide(y) == clamped;
  } else {
    const long double want = nearest<To>(in), got = wide(y);
    return std::isnan(want) ? std::isnan(got) : got == want && std::signbit(got) == std::signbit(want);
  }
}

template <class T> T sample(std::mt19937_64& engine) {
  const std::uint64_t bits = engine();
  if constexpr (std::is_same_v<T, bool>) return bits % 2 != 0;
  else if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<std::int64_t>(bits) >> (engine() % 63));
  else if constexpr (sizeof(T) == 2) return std::bit_cast<T>(static_cast<std::uint16_t>(bits));
  else if constexpr (std::is_same_v<T, float>)
    return bits % 2 ? std::bit_cast<float>(static_cast<std::uint32_t>(bits >> 32)) : static_cast<float>(static_cast<int>(bits >> 32) * 0x1p-24);
  else {
    const double near =
        std::ldexp(1.0 + static_cast<double>(bits >> 52) * 0x1p-12, static_cast<int>(engine() % 300) - 150);  // on and near ties of 16-bit formats
    const double nudge = engine() % 3 == 0 ? std::ldexp(near, -40) : 0;
    return bits % 5 == 0 ? std::bit_cast<double>(engine()) : (bits % 2 ? -1 : 1) * (near + nudge);
  }
}

template <class T> Guarded<T> samples(std::int64_t n, std::int64_t offset, std::mt19937_64& engine) {
  Guarded<T> x(n, offset);
  for (std::int64_t i = 0; i < n; ++i) x[i] = sample<T>(engine);
  return x;
}

// f.operator()<From, To>() for every pair.
template <class F> void for_each_pair(F f) {
  for (const Dtype from : kDtypes) {
    for (const Dtype to : kDtypes) {
      dispatch_all(from, "test", [&]<class From>() { dispatch_all(to, "test", [&]<class To>() { f.template operator()<From, To>(); }); });
    }
  }
}

template <class From, class To> void check_copy(const Strided& s, const Guarded<From>& x, std::int64_t offset) {
  CAPTURE(text(s));
  Guarded<To> y(reach(s, 0), offset);
  std::memset(y.data(), 1, reach(s, 0) * sizeof(To));
  const Guarded<To> before = y;
  copy(cpu_queue(), dtype_of<From>, dtype_of<To>, x.data(), y.data(), s);
  bool all = true;
  walk(s, [&](const Offsets& o) {
    all = all && (std::is_same_v<From, To> ? std::memcmp(&y[o[0]], &x[o[1]], sizeof(To)) == 0 : right<To>(y[o[0]], x[o[1]]));
    y[o[0]] = before[o[0]];
  });
  CHECK(all);
  CHECK(y.same_bits(before));
  CHECK(y.intact());
}

Strided plane(std::int64_t rows, std::int64_t columns) {  // y (columns, rows) = transposed x (rows, columns)
  Strided s = line(0, 2);
  s.dims = 2;
  s.size = {columns, rows};
  s.stride[0] = {rows, 1};
  s.stride[1] = {1, columns};
  return s;
}

}  // namespace

TEST_CASE("convert: every pair of dtypes, lengths, misaligned") {
  std::mt19937_64 engine(1);
  for_each_pair([&]<class From, class To>() {
    CAPTURE(name(dtype_of<From>));
    CAPTURE(name(dtype_of<To>));
    for (const std::int64_t n : lengths({63, 64, 65, 127, 20000})) {
      const Guarded<From> x = samples<From>(n, n % 4, engine);
      Guarded<To> y(n, n % 3);
      convert(cpu_queue(), dtype_of<From>, dtype_of<To>, x.data(), y.data(), n);
      bool all = true;
      for (std::int64_t i = 0; i < n; ++i) all = all && right<To>(y[i], x[i]);
      CHECK(all);
      CHECK(y.intact());
    }
  });
}

TEST_CASE("convert: all 65,536 values of both formats there and back") {
  const auto check = []<class T>(T) {
    Guarded<T> x(65536), back(65536);
    for (int i = 0; i < 65536; ++i) x[i].bits = static_cast<std::uint16_t>(i);
    Guarded<float> wide_x(65536);
    convert(cpu_queue(), dtype_of<T>, f32, x.data(), wide_x.data(), 65536);
    convert(cpu_queue(), f32, dtype_of<T>, wide_x.data(), back.data(), 65536);
    for (int i = 0; i < 65536; ++i) {
      const float direct = static_cast<float>(x[i]);
      if (std::isnan(direct)) {
        REQUIRE(std::isnan(wide_x[i]));
        REQUIRE((back[i].bits | 0x40 | 0x200) == (x[i].bits | 0x40 | 0x200));  // quiet, the payload kept
      } else {
        REQUIRE(std::bit_cast<std::uint32_t>(wide_x[i]) == std::bit_cast<std::uint32_t>(direct));
        REQUIRE(back[i] == x[i]);
      }
    }
  };
  check(f16_t());
  check(bf16_t());
}

TEST_CASE("convert: f32 to 16 bits at every exponent and the edges of rounding") {
  std::vector<float> edges;
  for (std::uint32_t upper = 0; upper < 65536; ++upper) {
    for (std::uint32_t lower : {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x3001u, 0x7fffu, 0x8000u, 0x8001u, 0xf000u, 0xffffu})
      edges.push_back(std::bit_cast<float>(upper << 16 | lower));
  }
  const auto n = static_cast<std::int64_t>(edges.size());
  Guarded<f16_t> half(n);
  Guarded<bf16_t> brain(n);
  convert(cpu_queue(), f32, f16, edges.data(), half.data(), n);
  convert(cpu_queue(), f32, bf16, edges.data(), brain.data(), n);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < n; ++i) wrong += !right(half[i], edges[i]) + !right(brain[i], edges[i]);
  CHECK(wrong == 0);
}

TEST_CASE("convert: no double rounding from f64 and i64") {
  const double tie = 1 + 0x1p-11;  // halfway between two f16
  const double x[] = {tie, tie + 0x1p-40, tie - 0x1p-40, 1 + 0x1p-8 + 0x1p-45, 65519.999999999, 65520, 0x1p-25, 0x1p-25 + 0x1p-70};
  f16_t half[8];
  bf16_t brain[8];
  convert(cpu_queue(), f64, f16, x, half, 8);
  convert(cpu_queue(), f64, bf16, x, brain, 8);
  const std::uint16_t want[] = {0x3c00, 0x3c01, 0x3c00, 0x3c04, 0x7bff, 0x7c00, 0x0000, 0x0001};
  for (int i = 0; i < 8; ++i) CHECK(half[i].bits == want[i]);
  CHECK(brain[3].bits == 0x3f81);
  const std::int64_t big[] = {(std::int64_t{1} << 62) + (std::int64_t{1} << 54) + 1, -((std::int64_t{1} << 62) + (std::int64_t{1} << 54)),
                              std::numeric_limits<std::int64_t>::min()};
  convert(cpu_queue(), i64, bf16, big, brain, 3);
  CHECK(brain[0].bits == 0x5e81);  // just above a tie
  CHECK(brain[1].bits == 0xde80);  // a tie
  CHECK(brain[2].bits == 0xdf00);
}

TEST_CASE("copy: random strides and broadcasts, every pair of dtypes") {
  std::mt19937_64 engine(2);
  for_each_pair([&]<class From, class To>() {
    CAPTURE(name(dtype_of<From>));
    CAPTURE(name(dtype_of<To>));
    RandomSpaces spaces(11, 2);
    for (int round = 0; round < 40; ++round) {
      const Strided s = spaces(round % 3 == 0 ? 150 : 9, 10000);
      check_copy<From, To>(s, samples<From>(reach(s, 1), round % 4, engine), round % 3);
    }
  });
}

TEST_CASE("copy: transposed planes of every element size, whole tiles and not") {
  std::mt19937_64 engine(3);
  const auto check = [&]<class From, class To>(From, To) {
    for (const auto& [rows, columns] :
         {std::pair<int, int>{8, 8}, {16, 128}, {31, 65}, {64, 64}, {100, 257}, {129, 130}, {7, 300}, {300, 9}, {517, 1100}}) {
      const Strided s = plane(rows, columns);
      check_copy<From, To>(s, samples<From>(reach(s, 1), rows % 3, engine), columns % 3);
    }
    Strided s = line(0, 2);  // (B, T, H, D) to (B, H, D, T): a plane among other dims, with a gap between the rows of x
    s.dims = 4;
    s.size = {2, 3, 20, 33};
    s.stride[0] = {3 * 20 * 33, 20 * 33, 33, 1};
    s.stride[1] = {33 * 70, 20, 1, 70};
    check_copy<From, To>(s, samples<From>(reach(s, 1), 1, engine), 2);
  };
  check(std::uint8_t(), std::uint8_t());
  check(bf16_t(), bf16_t());
  check(float(), float());
  check(double(), double());
  check(float(), bf16_t());
  check(f16_t(), float());
  check(std::int64_t(), std::int32_t());
}

TEST_CASE("copy: (B, T, H, D) to (B, H, T, D), and an expanded row") {
  std::mt19937_64 engine(4);
  Strided s = line(0, 2);
  s.dims = 4;
  s.size = {2, 5, 17, 64};
  s.stride[0] = {5 * 17 * 64, 17 * 64, 64, 1};
  s.stride[1] = {17 * 5 * 64, 64, 5 * 64, 1};
  check_copy<bf16_t, bf16_t>(s, samples<bf16_t>(reach(s, 1), 0, engine), 0);
  check_copy<float, f16_t>(s, samples<float>(reach(s, 1), 1, engine), 1);
  Strided wide = line(1000, 2);
  wide.stride[1] = {0};
  check_copy<float, bf16_t>(wide, samples<float>(1, 0, engine), 1);
}

TEST_CASE("fill: every dtype, strided and not") {
  RandomSpaces spaces(13, 1);
  for (const Dtype dtype : kDtypes) {
    dispatch_all(dtype, "test", [&]<class T>() {
      for (int round = 0; round < 60; ++round) {
        const Strided s = round < 20 ? line(round * 7, 1) : spaces(round % 3 == 0 ? 150 : 9);
        CAPTURE(text(s));
        Guarded<T> y(reach(s, 0), round % 4);
        std::memset(y.data(), 0, reach(s, 0) * sizeof(T));
        const Guarded<T> before = y;
        fill(cpu_queue(), dtype, 1.7, y.data(), s);
        bool all = true;
        walk(s, [&](const Offsets& o) {
          all = all && right<T>(y[o[0]], 1.7);
          y[o[0]] = before[o[0]];
        });
        CHECK(all);
        CHECK(y.same_bits(before));
        CHECK(y.intact());
      }
    });
  }
}
