// edge_test.cpp - batches, empty sizes, NaN and infinity, repeatability, several threads.
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#include "core/parallel.h"
#include "kernels_gemm/product_case.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

Gemm sizes(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t batch = 1) {
  Gemm g;
  g.m = m, g.n = n, g.k = k, g.batch = batch;
  return g;
}

template <class F> void for_each_dtype(F f) {
  SUBCASE("f32") { f(float(), float()); }
  SUBCASE("f16") { f(f16_t(), f16_t()); }
  SUBCASE("f16 to f32") { f(f16_t(), float()); }
  SUBCASE("bf16") { f(bf16_t(), bf16_t()); }
  SUBCASE("bf16 to f32") { f(bf16_t(), float()); }
  SUBCASE("f64") { f(double(), double()); }
}

}  // namespace

TEST_CASE("batches, with gaps and shared operands") {
  for_each_dtype([](auto t, auto c) {
    unsigned seed = 0;
    for (const auto& size : {sizes(5, 7, 3, 9), sizes(64, 48, 40, 3), sizes(33, 65, 17, 20), sizes(256, 64, 96, 5), sizes(1, 1, 1, 100)}) {
      for (const int shared : {0, 1, 2}) {
        Gemm g = size;
        g.trans_b = shared == 1;
        g.beta = shared == 2 ? 1 : 0;
        Layout l;
        l.share_a = shared == 1;
        l.share_b = shared == 2;
        l.gap = 5 * shared;
        l.pad_c = shared;
        l.bias = shared == 0;
        l.residual = shared == 1;
        Product<decltype(t), decltype(c)> p(g, l, Integers(++seed));
        p.run();
        p.check(true);
      }
    }
  });
}

TEST_CASE("empty sizes; alpha 0") {
  for_each_dtype([](auto t, auto c) {
    using T = decltype(t);
    using C = decltype(c);
    for (const auto& size : {sizes(0, 5, 3), sizes(5, 0, 3), sizes(5, 3, 2, 0), sizes(40, 30, 0), sizes(40, 30, 0, 2), sizes(40, 30, 7)}) {
      for (const double beta : {0.0, 1.0, 0.5}) {
        Gemm g = size;
        g.beta = beta;
        if (g.k == 7) g.alpha = 0;  // as in BLAS, A and B are not looked at: NaN in them does not matter
        Layout l;
        l.bias = l.residual = beta != 1;
        l.pad_c = 1;
        Product<T, C> p(g, l, Integers(1));
        if (g.alpha == 0) p.a[0] = T(kNan), p.b[1] = T(kInf);
        p.run();
        p.check(true);
      }
    }
  });
}

TEST_CASE("NaN and infinity go where they belong") {
  for_each_dtype([](auto t, auto c) {
    using T = decltype(t);
    using C = decltype(c);
    for (const auto& size : {sizes(13, 33, 9), sizes(100, 130, 80)}) {
      Product<T, C> p(size, {}, Integers(3));
      const Gemm& g = p.g;
      for (std::int64_t i = 0; i < g.m; ++i) p.set_before(i * g.ldc, C(kNan));  // beta is 0: not read
      p.a[2 * g.lda + 1] = T(kNan);                                             // row 2
      p.a[4 * g.lda + 1] = T(kInf);                                             // row 4: signed infinities, and NaN where B is 0
      p.b[(g.k - 1) * g.ldb + g.n - 1] = T(-kInf);                              // the last column
      p.run();
      p.check(true);
      CHECK(std::isnan(value(p.c[2 * g.ldc])));
      CHECK(std::isfinite(value(p.c[0])));
      CHECK(std::isfinite(value(p.c[5 * g.ldc + g.n - 2])));
    }
  });
}

TEST_CASE("a 16-bit C overflows as its format does, after the bias") {
  Gemm g = sizes(20, 40, 64);
  Layout l;
  l.bias = true;
  Product<f16_t, f16_t> p(g, l, [] { return 32.0; });
  for (std::int64_t j = 0; j < g.n; ++j) p.bias[j] = -16.0f * static_cast<float>(j % 4);  // 65536 and 65520 become infinite; 65504, 65488
  p.run();
  p.check(true);
  CHECK(std::isinf(value(p.c[0])));
  CHECK(std::isinf(value(p.c[1])));
  CHECK(value(p.c[2]) == 65504);
}

TEST_CASE("the same product again gives the same bits") {
  for_each_dtype([](auto t, auto c) {
    for (const auto& size : {sizes(384, 384, 700), sizes(65, 96, 9000), sizes(1000, 3, 200), sizes(16, 16, 50000), sizes(48, 64, 80, 12)}) {
      Gemm g = size;
      g.trans_a = true;
      Product<decltype(t), decltype(c)> p(g, {}, Reals(5));
      p.run();
      const auto first = p.c;
      for (int again = 0; again < 4; ++again) {
        p.run();
        CHECK(p.c.same_bits(first));
      }
    }
  });
}

TEST_CASE("inside a parallel region, and from several threads at once") {
  for_each_dtype([](auto t, auto c) {
    const auto one = [](unsigned seed) {
      Gemm g = sizes(100 + seed, 96, 200);
      g.trans_b = seed % 2;
      Layout l;
      l.bias = seed % 3 == 0;
      Product<decltype(t), decltype(c)> p(g, l, Integers(seed + 1));
      p.run();
      static std::mutex checks;  // one thread at a time, for readable messages
      const std::lock_guard lock(checks);
      p.check(true);
    };
    parallel_parts(4, [&](int part) { one(static_cast<unsigned>(part)); });
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; ++i)
      threads.emplace_back([&one, i] {
        for (unsigned j = 0; j < 4; ++j) one(4 * i + j);
      });
    for (auto& thread : threads) thread.join();
  });
}
