// reduce_test.cpp - reductions, row sums and running sums against f64: every dtype and shape of work, exact cases, NaN, any number of threads.
#include <type_traits>

#include <mezzo/runtime.h>

#include "core/parallel.h"
#include "kernels/enumerate.h"
#include "kernels/kernels.h"
#include "kernels/ref/reduce.h"
#include "ulp.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

struct Shape {
  std::int64_t outer, n, inner;
};

// Contiguous runs and columns, shorter and longer than chunks, strips and vectors, narrow and wide.
std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const std::int64_t n : lengths({63, 64, 65, 1000, 4096, 4097, 9000})) all.push_back({3, n, 1});
  for (const std::int64_t inner : {1, 2, 3, 5, 15, 16, 17, 31, 63, 64, 65, 100, 768, 1025}) {
    for (const std::int64_t n : {0, 1, 2, 3, 4, 5, 7, 70, 300})
      all.push_back({inner < 100 ? 2 : 1, inner < 500 ? n : std::min<std::int64_t>(n, 70), inner});
  }
  all.push_back({1, 40000, 3});
  all.push_back({1, 100000, 1});
  all.push_back({1, 600, 130});
  all.push_back({5000, 4, 1});
  all.push_back({1, 3000, 40});
  return all;
}

// Relative to the sum of sizes. Along a run one lane of the weakest target adds a quarter of a chunk of 4096, then lanes and partial results
// are joined; along rows 1 in 4 rows is added to the accumulator, of 256 rows or as many as make 65536 elements.
double sum_bound(const Shape& s) {
  const double chain = s.inner == 1
                           ? std::min<std::int64_t>(s.n, 4096) / 4.0 + 10
                           : std::min<double>(static_cast<double>(s.n), std::max<double>(256, 65536.0 / static_cast<double>(s.inner))) / 4 + 10;
  return (chain + 20) * kUnit32;
}

template <Reduce op> double definition(const std::vector<double>& x, const Shape& s, std::int64_t o, std::int64_t i, double* size) {
  long double sum = op == Reduce::prod ? 1 : op == Reduce::amax ? -std::numeric_limits<double>::infinity() : 0, magnitude = 0;
  for (std::int64_t k = 0; k < s.n; ++k) {
    const double v = x[static_cast<std::size_t>((o * s.n + k) * s.inner + i)];
    if constexpr (op == Reduce::prod) sum *= v;
    else if constexpr (op == Reduce::amax) sum = std::isnan(v) || v > sum ? v : sum;
    else sum += op == Reduce::sum_abs ? std::abs(v) : op == Reduce::sum_squares ? v * v : v;
    magnitude += op == Reduce::sum_squares ? v * v : std::abs(v);
  }
  *size = static_cast<double>(op == Reduce::prod ? std::abs(sum) : magnitude);
  return static_cast<double>(sum);
}

template <class From, class To> void check_reduce() {
  for (const Shape& s : shapes()) {
    CAPTURE(s.outer);
    CAPTURE(s.n);
    CAPTURE(s.inner);
    Normals normal(static_cast<unsigned>(s.n * 7 + s.inner), s.n > 50 ? 0.02 : 0.5, 1);  // products stay normal
    const Guarded<From> x(s.outer * s.n * s.inner, s.n % 3, normal);
    const std::vector<double> values = x.values();
    for (int op = 0; op < static_cast<int>(Reduce::count); ++op) {
      CAPTURE(op);
      with_constant(static_cast<Reduce>(op), [&](auto which) {
        const double scale = op % 2 ? 1 : 0.37;
        Guarded<To> y(s.outer * s.inner, s.inner % 3);
        reduce(cpu_queue(), which, dtype_of<From>, dtype_of<To>, x.data(), y.data(), s.outer, s.n, s.inner, scale);
        std::vector<double> want, tolerance;
        for (std::int64_t o = 0; o < s.outer; ++o) {
          for (std::int64_t i = 0; i < s.inner; ++i) {
            double size;
            want.push_back(definition<which()>(values, s, o, i, &size) * scale);
            const double f32_part = std::is_same_v<From, double> ? static_cast<double>(s.n + 4) * 0x1p-53
                                    : which == Reduce::prod      ? static_cast<double>(s.n + 4) * kUnit32
                                    : which == Reduce::amax      ? 2 * kUnit32
                                                                 : sum_bound(s);
            tolerance.push_back(size * scale * f32_part + unit<To>() * std::abs(want.back()) + tiny<To>());
            if (std::abs(want.back()) > format_info(dtype_of<To>).max * (1 + unit<To>()))
              want.back() = std::copysign(std::numeric_limits<double>::infinity(), want.back());
          }
        }
        check_close("reduce", y, want, [&](std::int64_t i) { return tolerance[static_cast<std::size_t>(i)]; });
      });
    }
  }
}

template <class T> void check_threads(std::int64_t n, FunctionRef<void(T*)> run) {
  Guarded<T> first(n);
  const int before = num_threads();
  for (const int threads : {1, 2, 3, 5}) {
    set_num_threads(threads);
    Guarded<T> y(n);
    run(y.data());
    if (threads == 1) first = y;
    CHECK_MESSAGE(y.same_bits(first), threads, " threads");
  }
  set_num_threads(before);
}

template <class From, class To> void check_cumsum() {
  for (const Shape& s :
       {Shape{1, 0, 1}, {3, 1, 1}, {3, 7, 1}, {2, 1023, 1}, {2, 1024, 1}, {1, 5000, 1}, {300, 33, 1}, {2, 40, 3}, {1, 17, 1025}, {3, 100, 64}}) {
    CAPTURE(s.n);
    CAPTURE(s.inner);
    const Guarded<From> x(s.outer * s.n * s.inner, 1, Normals(static_cast<unsigned>(s.n), 1));
    for (const bool reverse : {false, true}) {
      Guarded<To> y(s.outer * s.n * s.inner, 2);
      cumsum(cpu_queue(), dtype_of<From>, dtype_of<To>, x.data(), y.data(), s.outer, s.n, s.inner, reverse);
      std::vector<double> want(y.size()), size(y.size());
      for (std::int64_t o = 0; o < s.outer; ++o) {
        for (std::int64_t i = 0; i < s.inner; ++i) {
          double sum = 0, magnitude = 0;
          for (std::int64_t k = 0; k < s.n; ++k) {
            const std::int64_t at = (o * s.n + (reverse ? s.n - 1 - k : k)) * s.inner + i;
            want[at] = sum += value(x[at]);
            size[at] = magnitude += std::abs(value(x[at]));
          }
        }
      }
      const double chain = std::is_same_v<From, double>
                               ? static_cast<double>(s.n) * 0x1p-53
                               : (static_cast<double>(std::min<std::int64_t>(s.n, 1024)) / (s.inner == 1 ? 4 : 1) + 8) * kUnit32;
      check_close("cumsum", y, want, [&](std::int64_t i) { return chain * size[i] + unit<To>() * std::abs(want[i]) + tiny<To>(); });
    }
  }
}

}  // namespace

TEST_CASE("reduce: every op, f32 and the 16-bit formats, to f32 and back") {
  check_reduce<float, float>();
  check_reduce<f16_t, f16_t>();
  check_reduce<bf16_t, bf16_t>();
  check_reduce<bf16_t, float>();
  check_reduce<double, double>();
}

TEST_CASE("reduce: exact sums stay exact") {
  const Guarded<float> ones(10'000'000, 1, [] { return 1.0; });
  float sum = 0;
  reduce(cpu_queue(), Reduce::sum, f32, f32, ones.data(), &sum, 1, ones.size(), 1);
  CHECK(sum == 1e7f);
  const Guarded<f16_t> half(4096, 1, [] { return 1.0; });
  f16_t total;
  reduce(cpu_queue(), Reduce::sum, f16, f16, half.data(), &total, 1, 4096, 1);
  CHECK(static_cast<float>(total) == 4096);
  reduce(cpu_queue(), Reduce::sum, f16, f16, half.data(), &total, 1, 4096, 1, 1.0 / 4096);
  CHECK(static_cast<float>(total) == 1);
}

TEST_CASE("reduce: of nothing, of NaN, of Inf") {
  float y[3] = {5, 5, 5};
  reduce(cpu_queue(), Reduce::sum, f32, f32, nullptr, y, 1, 0, 3);
  CHECK((y[0] == 0 && y[1] == 0 && y[2] == 0));
  reduce(cpu_queue(), Reduce::prod, f32, f32, nullptr, y, 3, 0, 1);
  CHECK((y[0] == 1 && y[1] == 1 && y[2] == 1));
  reduce(cpu_queue(), Reduce::amax, f32, f32, nullptr, y, 1, 0, 3);
  CHECK((std::isinf(y[0]) && y[0] < 0));
  reduce(cpu_queue(), Reduce::sum, f32, f32, nullptr, y, 0, 4, 3);  // no results: nothing is touched
  for (const std::int64_t n : {1, 5, 16, 17, 63, 200, 5000}) {
    for (const std::int64_t place : {std::int64_t{0}, n / 2, n - 1}) {
      Guarded<bf16_t> x(n, 1, [] { return -2.0; });
      x[place] = bf16_t(std::numeric_limits<float>::quiet_NaN());
      float max = 0;
      reduce(cpu_queue(), Reduce::amax, bf16, f32, x.data(), &max, 1, n, 1);
      CHECK(std::isnan(max));
      Guarded<bf16_t> pairs(2 * n, 1, [] { return -2.0; });
      pairs[2 * place] = x[place];
      float both[2];
      reduce(cpu_queue(), Reduce::amax, bf16, f32, pairs.data(), both, 1, n, 2);
      CHECK(std::isnan(both[0]));
      CHECK(both[1] == -2);
    }
  }
}

TEST_CASE("reduce: integers and booleans in 64 bits") {
  const Guarded<std::int32_t> x(70000, 1, [] { return 100000.0; });
  std::int64_t sum = 0;
  reduce(cpu_queue(), Reduce::sum, i32, i64, x.data(), &sum, 1, 70000, 1);
  CHECK(sum == 7'000'000'000);
  Guarded<bool> b(1000, 3);
  for (int i = 0; i < 1000; ++i) b[i] = i % 3 == 0;
  reduce(cpu_queue(), Reduce::sum, boolean, i64, b.data(), &sum, 1, 1000, 1);
  CHECK(sum == 334);
  const std::int64_t few[] = {-7, 3, 2, -1};
  std::int64_t columns[2];
  reduce(cpu_queue(), Reduce::amax, i64, i64, few, columns, 1, 2, 2);
  CHECK((columns[0] == 2 && columns[1] == 3));
  reduce(cpu_queue(), Reduce::sum_abs, i64, i64, few, columns, 1, 2, 2);
  CHECK((columns[0] == 9 && columns[1] == 4));
  float mean = 0;
  reduce(cpu_queue(), Reduce::sum, i64, f32, few, &mean, 1, 4, 1, 0.25);
  CHECK(mean == -0.75f);
}

TEST_CASE("sum_rows: bias gradients, accumulated") {
  for (const std::int64_t c : {1, 3, 64, 65, 768, 3000}) {
    const Shape s{1, 513, c};
    const Guarded<bf16_t> x(s.n * c, 1, Normals(static_cast<unsigned>(c)));
    Guarded<float> sums(c, 3, [] { return 0.5; }), fresh(c, 1);
    sum_rows(cpu_queue(), bf16, x.data(), sums.data(), s.n, c, true);
    sum_rows(cpu_queue(), bf16, x.data(), fresh.data(), s.n, c, false);
    std::vector<double> want, size(c);
    for (std::int64_t i = 0; i < c; ++i) want.push_back(definition<Reduce::sum>(x.values(), s, 0, i, &size[i]));
    const auto tolerance = [&](std::int64_t i) { return (size[i] + 1) * sum_bound(s); };
    check_close("sum_rows", fresh, want, tolerance);
    for (double& w : want) w += 0.5;
    check_close("sum_rows accumulated", sums, want, tolerance);
  }
}

TEST_CASE("reduce, cumsum: the same bits with any number of threads") {
  const Guarded<float> x(200'000, 1, Normals(9));
  for (const Shape& s : {Shape{1, 200'000, 1}, {20, 10'000, 1}, {1, 2000, 100}, {1, 66'666, 3}, {4, 50, 1000}}) {
    check_threads<float>(s.outer * s.inner, [&](float* y) { reduce(cpu_queue(), Reduce::sum, f32, f32, x.data(), y, s.outer, s.n, s.inner); });
    check_threads<float>(s.outer * s.n * s.inner, [&](float* y) { cumsum(cpu_queue(), f32, f32, x.data(), y, s.outer, s.n, s.inner, false); });
  }
}

TEST_CASE("cumsum: both directions, every dtype") {
  check_cumsum<float, float>();
  check_cumsum<f16_t, float>();
  check_cumsum<bf16_t, bf16_t>();
  check_cumsum<f16_t, f16_t>();
  check_cumsum<double, double>();
  const std::int32_t x[] = {3, -1, 4, 1};
  std::int64_t y[4];
  cumsum(cpu_queue(), i32, i64, x, y, 1, 4, 1, false);
  CHECK((y[0] == 3 && y[1] == 2 && y[2] == 6 && y[3] == 7));
  cumsum(cpu_queue(), i32, i64, x, y, 1, 4, 1, true);
  CHECK((y[0] == 7 && y[1] == 4 && y[2] == 5 && y[3] == 1));
}
