// binary_test.cpp - arithmetic of two operands: every op and dtype, edges, random broadcasts and strides, numbers, in place.
#include <cstdio>
#include <type_traits>

#include <mezzo/runtime.h>

#include "kernels/enumerate.h"
#include "kernels/kernels.h"
#include "kernels/ref/elementwise.h"
#include "spaces.h"
#include "ulp.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
constexpr const char* kNames[] = {"add", "sub", "mul", "div", "pow", "maximum", "minimum"};
static_assert(std::size(kNames) == static_cast<std::size_t>(Binary::count));

// f(integral_constant, name) for the ops that T has.
template <class T, class F> void for_each_binary(F f) {
  for (int i = 0; i < static_cast<int>(Binary::count); ++i) {
    with_constant(static_cast<Binary>(i), [&](auto which) {
      if constexpr (!std::is_integral_v<T> || (which != Binary::div && which != Binary::pow)) f(which, kNames[i]);
    });
  }
}

// The definition: of 16-bit formats and f32 in double, exact but for the last rounding; others in T.
template <class T> using Exact = std::conditional_t<std::is_integral_v<T>, T, double>;
template <class T> Exact<T> exact(T x) {
  if constexpr (std::is_integral_v<T>) return x;
  else return value(x);
}
template <Binary op, class T> Exact<T> definition(Exact<T> a, Exact<T> b) {
  if constexpr (std::is_same_v<T, std::uint8_t>)
    return static_cast<std::uint8_t>(op == Binary::add       ? a + b
                                     : op == Binary::sub     ? a - b
                                     : op == Binary::mul     ? a * b
                                     : op == Binary::maximum ? std::max(a, b)
                                                             : std::min(a, b));
  else if constexpr (std::is_integral_v<T>)
    return op == Binary::add       ? a + b
           : op == Binary::sub     ? a - b
           : op == Binary::mul     ? a * b
           : op == Binary::maximum ? std::max(a, b)
                                   : std::min(a, b);
  else if constexpr (op == Binary::add) return a + b;
  else if constexpr (op == Binary::sub) return a - b;
  else if constexpr (op == Binary::mul) return a * b;
  else if constexpr (op == Binary::div) return a / b;
  else if constexpr (op == Binary::pow) return std::pow(a, b);
  else return std::isnan(a) || std::isnan(b) ? kNan : op == Binary::maximum ? std::max(a, b) : std::min(a, b);
}

// In ulps of T: half for the store; one f32 rounding before it for the 16-bit formats; pow is rounded from f64 lanes.
template <class T> double bound(Binary op) {
  return (sizeof(T) == 2 ? 0.5 + 0.5 * ulp<float>(1) / ulp<T>(1) : 0.5) + (op == Binary::pow ? 0.001 : 1e-9);
}

template <class T> bool right(Binary op, T got, Exact<T> want) {
  if constexpr (std::is_integral_v<T>) return got == want;
  else return error_in_ulps(got, want) <= bound<T>(op);
}

template <class T> T sample(Normals& normal) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<std::int64_t>(normal() * 20));
  else return rounded<T>(normal());
}

template <class T> Guarded<T> samples(std::int64_t n, std::int64_t offset, unsigned seed) {
  Normals normal(seed, 3);
  Guarded<T> x(n, offset);
  for (std::int64_t i = 0; i < n; ++i) x[i] = sample<T>(normal);
  return x;
}

template <class T> void check_spaces() {
  RandomSpaces spaces(7, 3);
  for (int round = 0; round < 200; ++round) {
    const Strided s = spaces(round % 3 == 0 ? 150 : 9);
    CAPTURE(text(s));
    const auto seed = static_cast<unsigned>(round);
    const Guarded<T> a = samples<T>(reach(s, 1), round % 4, seed), b = samples<T>(reach(s, 2), round % 3, seed + 1000);
    for_each_binary<T>([&](auto which, const char* op) {
      if (which == Binary::pow && round % 5 != 0) return;
      CAPTURE(op);
      Guarded<T> y(reach(s, 0), round % 5);
      std::memset(y.data(), 0x5a, reach(s, 0) * sizeof(T));
      Guarded<T> untouched = y;
      binary(cpu_queue(), which, dtype_of<T>, a.data(), b.data(), y.data(), s);
      bool all = true;
      walk(s, [&](const Offsets& o) {
        const bool ok = right<T>(which, y[o[0]], definition<which(), T>(exact(a[o[1]]), exact(b[o[2]])));
        all = all && ok;
        y[o[0]] = untouched[o[0]];
      });
      CHECK(all);
      CHECK(y.same_bits(untouched));  // what lies between the elements of y
      CHECK(y.intact());
    });
  }
}

template <class T> void check_lengths_and_numbers() {
  for (const std::int64_t n : lengths({63, 64, 65, 5000})) {
    const Guarded<T> a = samples<T>(n, 1, 1), b = samples<T>(n, 2, 2);
    const double number = 2.7;
    for_each_binary<T>([&](auto which, const char* op) {
      CAPTURE(op);
      CAPTURE(n);
      Guarded<T> y(n, 3), first = a, second = b, numbered(n, 1), reversed(n, 2), in_place = a;
      binary(cpu_queue(), which, dtype_of<T>, a.data(), b.data(), y.data(), line(n, 3));
      binary(cpu_queue(), which, dtype_of<T>, first.data(), b.data(), first.data(), line(n, 3));
      binary(cpu_queue(), which, dtype_of<T>, a.data(), second.data(), second.data(), line(n, 3));
      binary_scalar(cpu_queue(), which, dtype_of<T>, a.data(), number, false, numbered.data(), n);
      binary_scalar(cpu_queue(), which, dtype_of<T>, a.data(), number, true, reversed.data(), n);
      binary_scalar(cpu_queue(), which, dtype_of<T>, in_place.data(), number, false, in_place.data(), n);
      // A number meets f32 arithmetic as f32, an integer's truncated.
      const auto c = static_cast<Exact<T>>(std::is_integral_v<T>       ? 2
                                           : std::is_same_v<T, double> ? number
                                                                       : static_cast<double>(static_cast<float>(number)));
      bool all = true;
      for (std::int64_t i = 0; i < n; ++i) {
        all = all && right<T>(which, y[i], definition<which(), T>(exact(a[i]), exact(b[i])));
        all = all && right<T>(which, numbered[i], definition<which(), T>(exact(a[i]), c)) &&
              right<T>(which, reversed[i], definition<which(), T>(c, exact(a[i])));
      }
      CHECK(all);
      CHECK(std::memcmp(y.data(), first.data(), n * sizeof(T)) == 0);
      CHECK(std::memcmp(y.data(), second.data(), n * sizeof(T)) == 0);
      CHECK(std::memcmp(numbered.data(), in_place.data(), n * sizeof(T)) == 0);
      CHECK((y.intact() && first.intact() && second.intact() && numbered.intact() && reversed.intact() && in_place.intact()));
    });
  }
}

template <class T> void check_edges() {
  std::vector<double> edges = {0.0, 1e-45, 1e-38, 6e-8, 0.5, 1, 1.5, 2, 3, 4, 5, 127, 1e4, 65504, 0x1p23, 0x1p24, 16777217, 1e38, 3.4e38, kInf, kNan};
  for (std::size_t i = 0, n = edges.size(); i < n; ++i) edges.push_back(-edges[i]);
  std::vector<double> left, right_side;
  for (double a : edges) {
    for (double b : edges) {
      left.push_back(a);
      right_side.push_back(b);
    }
  }
  const auto n = static_cast<std::int64_t>(left.size());
  Guarded<T> a(n), b(n), y(n);
  for (std::int64_t i = 0; i < n; ++i) {
    a[i] = rounded<T>(left[i]);
    b[i] = rounded<T>(right_side[i]);
  }
  for_each_binary<T>([&](auto which, const char* op) {
    binary(cpu_queue(), which, dtype_of<T>, a.data(), b.data(), y.data(), line(n, 3));
    Worst worst;
    for (std::int64_t i = 0; i < n; ++i) {
      const double want = definition<which(), T>(value(a[i]), value(b[i]));
      worst.look(error_in_ulps(y[i], want) / bound<T>(which), value(a[i]), value(y[i]), want);
      if (want == 0 && which != Binary::maximum && which != Binary::minimum) CHECK(std::signbit(value(y[i])) == std::signbit(want));
    }
    CHECK_MESSAGE(worst.error() <= 1, std::string(op), " ", name(dtype_of<T>), ": share of the bound ", worst.text());
  });
}

}  // namespace

TEST_CASE("binary: random strides and broadcasts") {
  check_spaces<float>();
  check_spaces<f16_t>();
  check_spaces<bf16_t>();
  check_spaces<double>();
  check_spaces<std::int32_t>();
  check_spaces<std::int64_t>();
  check_spaces<std::uint8_t>();
}

TEST_CASE("binary: lengths, misaligned, in place, with a number on either side") {
  check_lengths_and_numbers<float>();
  check_lengths_and_numbers<f16_t>();
  check_lengths_and_numbers<bf16_t>();
  check_lengths_and_numbers<double>();
  check_lengths_and_numbers<std::int32_t>();
  check_lengths_and_numbers<std::int64_t>();
  check_lengths_and_numbers<std::uint8_t>();
}

TEST_CASE("binary: Inf, NaN, zeros of both signs, subnormals, overflow; pow's special cases") {
  check_edges<float>();
  check_edges<f16_t>();
  check_edges<bf16_t>();
  check_edges<double>();
}

TEST_CASE("binary: integers wrap") {
  Guarded<std::int32_t> a(3), y(3);
  a[0] = std::numeric_limits<std::int32_t>::max(), a[1] = std::numeric_limits<std::int32_t>::min(), a[2] = 65536;
  binary_scalar(cpu_queue(), Binary::add, i32, a.data(), 1, false, y.data(), 3);
  CHECK(y[0] == std::numeric_limits<std::int32_t>::min());
  binary(cpu_queue(), Binary::mul, i32, a.data(), a.data(), y.data(), line(3, 3));
  CHECK((y[0] == 1 && y[1] == 0 && y[2] == 0));
}

TEST_CASE("binary: a bias added to rows, and a column, at sizes that take the fast paths") {
  const std::int64_t rows = 37, c = 768;
  const Guarded<bf16_t> x = samples<bf16_t>(rows * c, 0, 1), bias = samples<bf16_t>(c, 0, 2), column = samples<bf16_t>(rows, 0, 3);
  Guarded<bf16_t> y(rows * c), z(rows * c);
  Strided s = line(c, 3);
  s.dims = 2;
  s.size = {rows, c};
  s.stride[0] = {c, 1}, s.stride[1] = {c, 1}, s.stride[2] = {0, 1};
  binary(cpu_queue(), Binary::add, bf16, x.data(), bias.data(), y.data(), s);
  s.stride[2] = {1, 0};
  binary(cpu_queue(), Binary::mul, bf16, x.data(), column.data(), z.data(), s);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < c; ++i) {
      const std::int64_t k = r * c + i;
      REQUIRE(y[k] == bf16_t(static_cast<float>(x[k]) + static_cast<float>(bias[i])));
      REQUIRE(z[k] == bf16_t(static_cast<float>(x[k]) * static_cast<float>(column[r])));
    }
  }
}
