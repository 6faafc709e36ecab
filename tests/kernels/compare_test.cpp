// compare_test.cpp - comparisons and selection: every dtype, NaN, random broadcasts and strides, tails.
#include <type_traits>

#include "kernels/enumerate.h"
#include "kernels/kernels.h"
#include "spaces.h"
#include "guarded.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

template <class T> T sample(std::mt19937& engine) {  // few values, so that many are equal; NaN and Inf among the floats
  const int i = std::uniform_int_distribution<int>(0, 7)(engine);
  if constexpr (std::is_same_v<T, bool>) return i % 2 != 0;
  else if constexpr (std::is_integral_v<T>) return static_cast<T>(i - 3);
  else
    return rounded<T>(i == 6   ? std::numeric_limits<double>::quiet_NaN()
                      : i == 7 ? std::numeric_limits<double>::infinity()
                      : i == 0 ? -0.0
                               : (i - 1) * 0.5);
}

template <class T> Guarded<T> samples(std::int64_t n, std::int64_t offset, std::mt19937& engine) {
  Guarded<T> x(n, offset);
  for (std::int64_t i = 0; i < n; ++i) x[i] = sample<T>(engine);
  return x;
}

bool definition(Compare op, auto a, auto b) {
  switch (op) {
    case Compare::eq: return a == b;
    case Compare::ne: return a != b;
    case Compare::lt: return a < b;
    case Compare::le: return a <= b;
    case Compare::gt: return a > b;
    default: return a >= b;
  }
}

template <class T> auto number(T x) {
  if constexpr (std::is_integral_v<T>) return static_cast<std::int64_t>(x);
  else return value(x);
}

template <class T> void check(const Strided& s3, const Strided& s4, std::mt19937& engine, std::int64_t offset) {
  CAPTURE(text(s4));
  const Guarded<T> a = samples<T>(reach(s3, 1), offset, engine), b = samples<T>(reach(s3, 2), offset + 1, engine);
  for (int i = 0; i < static_cast<int>(Compare::count); ++i) {
    const auto op = static_cast<Compare>(i);
    Guarded<std::uint8_t> y(reach(s3, 0), offset);
    compare(cpu_queue(), op, dtype_of<T>, a.data(), b.data(), y.data(), s3);
    bool all = true;
    walk(s3, [&](const Offsets& o) { all = all && y[o[0]] == (definition(op, number(a[o[1]]), number(b[o[2]])) ? 1 : 0); });
    CHECK(all);
    CHECK(y.intact());
  }
  const Guarded<bool> condition = samples<bool>(reach(s4, 1), offset, engine);
  const Guarded<T> yes = samples<T>(reach(s4, 2), offset, engine), no = samples<T>(reach(s4, 3), offset, engine);
  Guarded<T> y(reach(s4, 0), offset);
  select(cpu_queue(), dtype_of<T>, reinterpret_cast<const std::uint8_t*>(condition.data()), yes.data(), no.data(), y.data(), s4);
  bool all = true;
  walk(s4, [&](const Offsets& o) { all = all && std::memcmp(&y[o[0]], condition[o[1]] ? &yes[o[2]] : &no[o[3]], sizeof(T)) == 0; });
  CHECK(all);
  CHECK(y.intact());
}

template <class T> void check_all() {
  std::mt19937 engine(3);
  RandomSpaces three(5, 3), four(6, 4);
  for (int round = 0; round < 80; ++round) check<T>(three(round % 3 == 0 ? 150 : 9, 8000), four(round % 3 == 0 ? 150 : 9, 8000), engine, round % 4);
  for (const std::int64_t n : lengths({63, 64, 65, 129, 20000})) check<T>(line(n, 3), line(n, 4), engine, n % 3);
}

}  // namespace

TEST_CASE("compare, select: f32 and the 16-bit formats") {
  check_all<float>();
  check_all<f16_t>();
  check_all<bf16_t>();
}

TEST_CASE("compare, select: f64, integers, boolean") {
  check_all<double>();
  check_all<std::int32_t>();
  check_all<std::int64_t>();
  check_all<std::uint8_t>();
  check_all<bool>();
}

TEST_CASE("compare: integers beyond f64's are not rounded") {
  const std::int64_t a = (std::int64_t{1} << 53) + 1, b = std::int64_t{1} << 53;
  std::uint8_t y = 7;
  compare(cpu_queue(), Compare::gt, i64, &a, &b, &y, line(1, 3));
  CHECK(y == 1);
}
