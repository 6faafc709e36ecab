// sweep_test.cpp - every dtype, transpose, padding, alpha, beta, bias and residual over small sizes, and the sizes that models have.
#include <algorithm>
#include <array>

#include "kernels_gemm/product_case.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

constexpr std::array<std::int64_t, 9> kRows{1, 2, 5, 11, 12, 13, 25, 33, 49};
constexpr std::array<std::int64_t, 10> kCols{1, 3, 7, 8, 16, 17, 31, 32, 33, 65};
constexpr std::array<std::int64_t, 8> kDepths{1, 2, 3, 7, 16, 33, 64, 101};

/// A different mix of options for each n, so that all of them meet sizes of all kinds.
void vary(std::uint32_t n, Gemm& g, Layout& l) {
  n = n * 2654435761u >> 7;
  const auto draw = [&n](std::uint32_t count) {
    const std::uint32_t d = n % count;
    n /= count;
    return d;
  };
  g.trans_a = draw(2);
  g.trans_b = draw(2);
  g.beta = std::array{0.0, 1.0, 0.5}[draw(3)];
  g.alpha = std::array{1.0, 1.0, -0.5, 2.0}[draw(4)];
  l.bias = draw(2);
  l.residual = draw(2);
  l.pad_a = draw(3);
  l.pad_b = draw(3) * 4;
  l.pad_c = draw(3) * 3;
  l.offset = draw(4);
}

template <class T, class C, class B> void sweep() {
  std::uint32_t n = 0;
  for (const auto m : kRows) {
    for (const auto cols : kCols) {
      for (const auto k : kDepths) {
        Gemm g;
        g.m = m, g.n = cols, g.k = k;
        Layout l;
        vary(++n, g, l);
        Product<T, C, B> p(g, l, Integers(n));
        p.run();
        p.check(/*exact=*/true);
      }
    }
  }
}

struct Size {
  std::int64_t m, n, k;
};
constexpr Size kModelSizes[] = {
    {3072, 384, 384}, {3072, 1536, 384}, {384, 1536, 3072}, {3072, 384, 1536},  // GPT 6 x 384, B 12, T 256: forward, gradients
    {3072, 65, 384},  {65, 384, 3072},   {256, 2304, 768},                      // its head; GPT-2 124M, B 4, T 64
    {1, 768, 768},    {4, 1000, 512},    {77, 129, 5000},   {16, 16, 20000},    // generation; long sums
};

template <class T, class C> void model_sizes() {
  unsigned seed = 0;
  for (const Size& s : kModelSizes) {
    for (const int variant : {0, 1, 2}) {
      Gemm g;
      g.m = s.m, g.n = s.n, g.k = s.k;
      Layout l;
      g.trans_b = variant == 0;
      g.trans_a = variant == 2;
      l.bias = l.residual = variant == 0;
      g.beta = variant == 2 ? 1 : 0;
      const std::int64_t step = std::max<std::int64_t>(1, s.m * s.n / 500) | 1;
      Product<T, C> exact(g, l, Integers(++seed));
      exact.run();
      exact.check(true, step);
      Product<T, C> rounding(g, l, Reals(seed));
      rounding.run();
      rounding.check(false, step);
    }
  }
}

}  // namespace

TEST_CASE("small products, exactly") {
  SUBCASE("f32") { sweep<float, float, float>(); }
  SUBCASE("f16") { sweep<f16_t, f16_t, float>(); }
  SUBCASE("f16, bias in f16") { sweep<f16_t, f16_t, f16_t>(); }
  SUBCASE("f16 to f32") { sweep<f16_t, float, float>(); }
  SUBCASE("bf16") { sweep<bf16_t, bf16_t, float>(); }
  SUBCASE("bf16, bias in bf16") { sweep<bf16_t, bf16_t, bf16_t>(); }
  SUBCASE("bf16 to f32") { sweep<bf16_t, float, float>(); }
  SUBCASE("f64") { sweep<double, double, double>(); }
  SUBCASE("f64, bias in f32") { sweep<double, double, float>(); }
}

TEST_CASE("products of models' sizes") {
  SUBCASE("f32") { model_sizes<float, float>(); }
  SUBCASE("f16") { model_sizes<f16_t, f16_t>(); }
  SUBCASE("f16 to f32") { model_sizes<f16_t, float>(); }
  SUBCASE("bf16") { model_sizes<bf16_t, bf16_t>(); }
  SUBCASE("bf16 to f32") { model_sizes<bf16_t, float>(); }
}

TEST_CASE("f64 products are f64") {
  Gemm g;
  g.m = 70, g.n = 130, g.k = 300, g.alpha = 1.5, g.beta = -0.25;
  for (const int transposes : {0, 1, 2, 3}) {
    g.trans_a = transposes & 1;
    g.trans_b = transposes & 2;
    Layout l;
    l.residual = l.bias = true;
    l.pad_a = 3, l.pad_b = 1, l.pad_c = 2;
    Product<double, double, double> p(g, l, Reals(transposes));
    p.run();
    p.check(false);
  }
}
