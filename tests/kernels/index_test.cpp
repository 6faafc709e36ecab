// index_test.cpp - gather, scatter_add, rows of tables and their gradients, bounds: against plain loops, bit for bit, any number of threads.
#include <random>
#include <type_traits>

#include <mezzo/runtime.h>

#include "dtype/dispatch.h"
#include "guarded.h"
#include "kernels/kernels.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

template <class T> Guarded<T> samples(std::int64_t n, std::int64_t offset, unsigned seed) {
  Normals normal(seed, 3);
  Guarded<T> x(n, offset);
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_integral_v<T>) x[i] = static_cast<T>(static_cast<int>(normal() * 10));
    else x[i] = rounded<T>(normal());
  }
  return x;
}

template <class I> Guarded<I> indices(std::int64_t n, std::int64_t below, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<std::int64_t> draw(0, below - 1);
  Guarded<I> index(n, 1);
  for (std::int64_t i = 0; i < n; ++i) index[i] = static_cast<I>(draw(engine) * draw(engine) / below);  // small ones more often
  return index;
}

template <class T, class I> void check_gather_scatter() {
  struct Shape {
    std::int64_t outer, of, n, inner;
  };
  for (const Shape& s :
       {Shape{1, 10, 0, 1}, {1, 1, 7, 1}, {3, 10, 33, 1}, {2, 5, 9, 7}, {2, 50, 3, 100}, {1, 1000, 20000, 1}, {1, 40, 300, 80}, {70, 3, 5, 1}}) {
    CAPTURE(s.outer);
    CAPTURE(s.n);
    CAPTURE(s.inner);
    const std::int64_t count = s.outer * s.n * s.inner, size = s.outer * s.of * s.inner;
    const Guarded<T> table = samples<T>(size, 1, 5), src = samples<T>(count, 2, 6);
    const Guarded<I> index = indices<I>(count, s.of, 7);
    Guarded<T> y(count, 3);
    gather(cpu_queue(), dtype_of<T>, dtype_of<I>, table.data(), index.data(), y.data(), s.outer, s.of, s.n, s.inner);
    const auto place = [&](std::int64_t i) { return (i / (s.n * s.inner) * s.of + static_cast<std::int64_t>(index[i])) * s.inner + i % s.inner; };
    bool all = true;
    for (std::int64_t i = 0; i < count; ++i) all = all && std::memcmp(&y[i], &table[place(i)], sizeof(T)) == 0;
    CHECK(all);
    CHECK(y.intact());

    using Sum = std::conditional_t<sizeof(T) == 2, float, T>;
    std::vector<Sum> want(size);
    for (std::int64_t i = 0; i < size; ++i) want[i] = static_cast<Sum>(table[i]);
    for (std::int64_t i = 0; i < count; ++i) want[place(i)] = static_cast<Sum>(want[place(i)] + static_cast<Sum>(src[i]));
    const int before = num_threads();
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      Guarded<T> sums = table;
      scatter_add(cpu_queue(), dtype_of<T>, dtype_of<I>, src.data(), index.data(), sums.data(), s.outer, s.of, s.n, s.inner);
      bool same = true;
      for (std::int64_t i = 0; i < size; ++i) {
        const T rounded_once = static_cast<T>(want[i]);
        same = same && std::memcmp(&sums[i], &rounded_once, sizeof(T)) == 0;
      }
      CHECK(same);
      CHECK(sums.intact());
    }
    set_num_threads(before);
  }
}

template <class From, class To, class I> void check_rows() {
  struct Shape {
    std::int64_t n, v, c;
  };
  for (const Shape& s :
       {Shape{0, 3, 5}, {1, 1, 1}, {5, 1, 33}, {17, 4, 64}, {300, 65, 100}, {500, 5000, 17}, {700, 50257, 8}, {260, 10, 768}, {40, 9, 257}}) {
    CAPTURE(s.n);
    CAPTURE(s.v);
    CAPTURE(s.c);
    const Guarded<I> ids = indices<I>(s.n, s.v, 3);
    const Guarded<From> table = samples<From>(s.v * s.c, 1, 4), dy = samples<From>(s.n * s.c, 2, 5);
    Guarded<To> y(s.n * s.c, 1), want_y(s.n * s.c, 1);
    gather_rows(cpu_queue(), dtype_of<From>, dtype_of<To>, dtype_of<I>, table.data(), ids.data(), y.data(), s.n, s.c);
    bool all = true;
    for (std::int64_t i = 0; i < s.n; ++i) {
      convert(cpu_queue(), dtype_of<From>, dtype_of<To>, table.data() + ids[i] * s.c, want_y.data() + i * s.c, s.c);
      all = all && std::memcmp(y.data() + i * s.c, want_y.data() + i * s.c, s.c * sizeof(To)) == 0;
    }
    CHECK(all);
    CHECK(y.intact());

    if constexpr (std::is_floating_point_v<To>) {
      for (const std::int64_t skip : {std::int64_t{-1}, s.v / 2}) {
        const Guarded<To> initial = samples<To>(s.v * s.c, 3, 6);
        Guarded<To> want = initial;
        for (std::int64_t i = 0; i < s.n; ++i) {
          if (ids[i] == skip) continue;
          for (std::int64_t k = 0; k < s.c; ++k) want[ids[i] * s.c + k] += static_cast<To>(dy[i * s.c + k]);
        }
        const int before = num_threads();
        for (const int threads : {1, 2, 3, 7}) {
          set_num_threads(threads);
          Guarded<To> sums = initial;
          scatter_add_rows(cpu_queue(), dtype_of<From>, dtype_of<To>, dtype_of<I>, dy.data(), ids.data(), sums.data(), s.n, s.v, s.c, skip);
          CHECK(sums.same_bits(want));
          CHECK(sums.intact());
        }
        set_num_threads(before);
      }
    }
  }
}

}  // namespace

TEST_CASE("gather, scatter_add: every dtype, both index dtypes") {
  for (const Dtype dtype : {f32, f16, bf16, f64, i32, i64, u8}) {
    dispatch_number(dtype, "test", [&]<class T>() {
      check_gather_scatter<T, std::int32_t>();
      check_gather_scatter<T, std::int64_t>();
    });
  }
}

TEST_CASE("gather_rows, scatter_add_rows: skewed ids, skipped ids, wide and narrow rows") {
  check_rows<float, float, std::int64_t>();
  check_rows<float, bf16_t, std::int32_t>();
  check_rows<bf16_t, float, std::int64_t>();
  check_rows<f16_t, float, std::int32_t>();
  check_rows<double, double, std::int64_t>();
  check_rows<bf16_t, bf16_t, std::int64_t>();
}

TEST_CASE("index_bounds") {
  for (const std::int64_t n : {1, 3, 17, 1000, 100'000}) {
    Guarded<std::int64_t> index = indices<std::int64_t>(n, 1000, 1);
    index[n / 2] = -5;
    index[n - 1] = 5'000'000'000;
    std::int64_t bounds[2];
    index_bounds(cpu_queue(), i64, index.data(), n, bounds);
    CHECK(bounds[0] == (n == 1 ? 5'000'000'000 : -5));
    CHECK(bounds[1] == 5'000'000'000);
    const Guarded<std::int32_t> small = indices<std::int32_t>(n, 77, 2);
    index_bounds(cpu_queue(), i32, small.data(), n, bounds);
    CHECK(bounds[0] == *std::min_element(small.data(), small.data() + n));
    CHECK(bounds[1] == *std::max_element(small.data(), small.data() + n));
  }
}
