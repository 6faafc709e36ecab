// paths_test.cpp - each way to compute a product, called directly: whichever `gemm` prefers, all are right.
#include <limits>

#include "core/parallel.h"
#include "kernels/gemm/onednn.h"
#include "kernels/gemm/packed.h"
#include "kernels/gemm/stream.h"
#include "kernels/gemm/thin.h"
#include "kernels_gemm/product_case.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

struct Variant {
  bool trans_a, trans_b;
  double beta;
  bool bias, residual;
};
constexpr Variant kVariants[] = {{false, true, 0, true, false},  {false, true, 0, true, true},   {false, false, 0, false, false},
                                 {false, false, 1, false, true}, {true, false, 0, false, false}, {true, false, 1, false, false},
                                 {false, true, 1, true, true}};
struct Size {
  std::int64_t m, n, k;
};
constexpr Size kSizes[] = {{96, 64, 80}, {37, 65, 33}, {130, 100, 47}, {1, 64, 256}, {64, 1, 64}, {200, 384, 384}, {17, 25, 1100}};
constexpr int kAll = 7 * 7;

#ifdef MEZZO_WITHOUT_ONEDNN
constexpr bool kOneDnn = false;
#else
constexpr bool kOneDnn = true;
#endif

/// How many of the variants compute(gemm, a, b, c) took; those must be right.
template <class T, class C, class B = float, class Compute> int taken(Compute compute) {
  int n = 0;
  unsigned seed = 0;
  for (const Size& s : kSizes) {
    for (const Variant& v : kVariants) {
      Gemm g;
      g.m = s.m, g.n = s.n, g.k = s.k;
      g.trans_a = v.trans_a, g.trans_b = v.trans_b, g.beta = v.beta;
      Layout l;
      l.bias = v.bias, l.residual = v.residual;
      l.pad_a = l.pad_b = l.pad_c = ++seed % 2 * 8;
      Product<T, C, B> p(g, l, Integers(seed));
      p.reset();
      if (!compute(p.g, p.a.data(), p.b.data(), p.c.data())) continue;
      p.check(true);
      ++n;
    }
  }
  return n;
}

bool matmul(const Gemm& g, const void* a, const void* b, void* c) { return onednn_matmul(cpu_queue(), g, a, b, c); }

}  // namespace

TEST_CASE("f32 of bf16, as weight gradients and logits are: oneDNN's matmul, and the packed one") {
  const bool native = native_gemm(bf16);
  CHECK((taken<bf16_t, float>(matmul) > 0) == (kOneDnn && native));
  const Tiles& tiles = native ? *bf16_tiles() : f32_tiles();
  const auto packed = [&](const Gemm& g, const void* a, const void* b, void* c) { return packed_gemm(cpu_queue(), tiles, 2, g, a, b, c), true; };
  CHECK(taken<bf16_t, float>(packed) == kAll);
}

TEST_CASE("oneDNN's matmul takes every epilogue, and runs again from its cache") {
  const int first = taken<bf16_t, bf16_t>(matmul), wide = taken<float, float>(matmul);
  CHECK((first > 0) == (kOneDnn && native_gemm(bf16)));
  CHECK((wide > 0) == (kOneDnn && active_isa() >= Isa::avx512));
  CHECK(taken<bf16_t, bf16_t>(matmul) == first);
  CHECK(taken<bf16_t, bf16_t, bf16_t>(matmul) == first);
  CHECK(taken<float, float>(matmul) == wide);
}

TEST_CASE("the thin product, of few rows, gives the same bits on any number of threads") {
  const auto thin = [](auto t, auto c) {
    const Dtype dtype = dtype_of<decltype(t)>;
    const int before = num_threads();
    for (const std::int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 13, 24}) {
      for (const std::int64_t k : {1, 15, 31, 32, 100, 4096 + 33}) {
        Gemm g;
        g.m = m, g.n = k < 4096 ? 391 : 70, g.k = k, g.trans_b = true;
        Layout l;
        l.bias = true, l.residual = true, l.pad_a = l.pad_b = l.pad_c = 3;
        Product<decltype(t), decltype(c)> p(g, l, Integers(static_cast<unsigned>(m * k)));
        p.reset();
        const auto bytes = static_cast<std::int64_t>(size_of(dtype));
        const ThinMatrix w{p.b.data(), p.g.ldb * bytes, 1, bytes, nullptr, dtype};
        thin_gemm(cpu_queue(), p.g, p.a.data(), w, p.c.data());
        p.check(true);
        Product<decltype(t), decltype(c)> q(g, l, Reals(static_cast<unsigned>(m * k)));
        const ThinMatrix v{q.b.data(), q.g.ldb * bytes, 1, bytes, nullptr, dtype};
        q.reset();
        thin_gemm(cpu_queue(), q.g, q.a.data(), v, q.c.data());
        q.check(false);
        const auto first = q.c;
        set_num_threads(before == 1 ? 3 : 1);
        q.reset();
        thin_gemm(cpu_queue(), q.g, q.a.data(), v, q.c.data());
        set_num_threads(before);
        CHECK(q.c.same_bits(first));
      }
    }
  };
  thin(float(), float());
  thin(bf16_t(), bf16_t());
  thin(bf16_t(), float());
  thin(f16_t(), f16_t());
}

TEST_CASE("the thin product in columns takes either B, and gives the same bits on any number of threads") {
  const auto thin = [](auto t, auto c) {
    const int before = num_threads();
    unsigned seed = 0;
    for (const std::int64_t n : {1, 4, 7, 13, 20, 32}) {
      for (const Size& s : {Size{3, 1, 1}, Size{66, 1, 31}, Size{391, 1, 200}}) {
        for (const bool trans_b : {false, true}) {
          Gemm g;
          g.m = s.m, g.n = n, g.k = s.k, g.trans_b = trans_b;
          Layout l;
          l.bias = ++seed % 2, l.residual = seed % 3 == 0;
          l.pad_a = l.pad_b = l.pad_c = seed % 4;
          Product<decltype(t), decltype(c)> exact(g, l, Integers(seed));
          REQUIRE(is_thin_in_columns(exact.g));
          exact.reset();
          thin_columns_gemm(cpu_queue(), exact.g, exact.a.data(), exact.b.data(), exact.c.data());
          exact.check(true);
          Product<decltype(t), decltype(c)> p(g, l, Reals(seed));
          p.reset();
          thin_columns_gemm(cpu_queue(), p.g, p.a.data(), p.b.data(), p.c.data());
          p.check(false);
          const auto first = p.c;
          set_num_threads(before == 1 ? 3 : 1);
          p.reset();
          thin_columns_gemm(cpu_queue(), p.g, p.a.data(), p.b.data(), p.c.data());
          set_num_threads(before);
          CHECK(p.c.same_bits(first));
        }
      }
    }
  };
  thin(float(), float());
  thin(bf16_t(), bf16_t());
  thin(bf16_t(), float());
  thin(f16_t(), f16_t());
}

TEST_CASE("the streamed product takes either side, and gives the same bits on any number of threads") {
  const auto stream = [](auto t, auto c, const Tiles& tiles) {
    const int before = num_threads();
    unsigned seed = 0;
    for (const Short side : {Short::rows, Short::cols}) {
      for (const std::int64_t few : {1, 2, 5, 9, 13, 24, 48}) {
        for (const Size& s : {Size{1, 77, 1}, Size{1, 33, 7}, Size{1, 64, 30}, Size{1, 517, 65}, Size{1, 1300, 129}, Size{1, 1300, 901}}) {
          if (s.k > 900 && few > 2) continue;       // the last is cut along k
          for (const bool other : {false, true}) {  // the small operand either way
            Gemm g;
            g.m = side == Short::rows ? few : s.n, g.n = side == Short::rows ? s.n : few, g.k = s.k;
            g.trans_a = side == Short::cols || other, g.trans_b = side == Short::cols && other;
            g.beta = ++seed % 3 * 0.5;
            Layout l;
            l.pad_a = l.pad_b = l.pad_c = seed % 2 * 3;
            l.offset = seed % 4;
            Product<decltype(t), decltype(c)> exact(g, l, Integers(seed));
            REQUIRE(is_streamed(exact.g, side));
            exact.reset();
            stream_gemm(cpu_queue(), tiles, exact.g, side, exact.a.data(), exact.b.data(), exact.c.data());
            exact.check(true);
            if (s.n < 500) continue;
            Product<decltype(t), decltype(c)> p(g, l, Reals(seed));
            p.reset();
            stream_gemm(cpu_queue(), tiles, p.g, side, p.a.data(), p.b.data(), p.c.data());
            p.check(false, 7);
            const auto first = p.c;
            set_num_threads(before == 1 ? 3 : 1);
            p.reset();
            stream_gemm(cpu_queue(), tiles, p.g, side, p.a.data(), p.b.data(), p.c.data());
            set_num_threads(before);
            CHECK(p.c.same_bits(first));
          }
        }
      }
    }
  };
  stream(float(), float(), f32_tiles());
  stream(f16_t(), f16_t(), f32_tiles());
  stream(bf16_t(), float(), f32_tiles());
  if (bf16_tiles()) stream(bf16_t(), bf16_t(), *bf16_tiles()), stream(bf16_t(), float(), *bf16_tiles());
}

TEST_CASE("the streamed product lets NaN and infinity of the matrix stay in their columns") {
  const auto stream = [](auto t, const Tiles& tiles) {
    Gemm g;
    g.m = 3, g.n = 70, g.k = 13;  // the last group of rows is not whole
    Product<decltype(t), decltype(t)> p(g, {}, Integers(1));
    p.b[12 * p.g.ldb + 5] = decltype(t)(std::numeric_limits<float>::infinity());
    p.b[69] = decltype(t)(std::numeric_limits<float>::quiet_NaN());
    p.reset();
    stream_gemm(cpu_queue(), tiles, p.g, Short::rows, p.a.data(), p.b.data(), p.c.data());
    p.check(true);
  };
  stream(float(), f32_tiles());
  stream(bf16_t(), f32_tiles());
  if (bf16_tiles()) stream(bf16_t(), *bf16_tiles());
}

TEST_CASE("a sum that goes on with a second pair of operands") {
  const auto extended = [](auto t, auto c, const Tiles& tiles) {
    unsigned seed = 0;
    for (const Size& s :
         {Size{96, 64, 80}, Size{37, 65, 33}, Size{13, 1, 1}, Size{290, 100, 47}, Size{50, 70, 4097}, Size{3, 64, 256}, Size{40, 30, 0}}) {
      for (const std::int64_t tail : {1, 16, 35}) {
        for (const Variant& v : kVariants) {
          Gemm g;
          g.m = s.m, g.n = s.n, g.k = s.k;
          g.trans_a = v.trans_a, g.trans_b = v.trans_b, g.beta = v.beta;
          g.alpha = ++seed % 3 == 0 ? 0.5 : 1;
          Layout l;
          l.bias = v.bias, l.residual = v.residual, l.tail = tail;
          l.pad_a = l.pad_b = l.pad_c = seed % 2 * 5;
          Product<decltype(t), decltype(c)> p(g, l, Integers(seed));
          p.reset();
          packed_gemm(cpu_queue(), tiles, 2, p.g, p.a.data(), p.b.data(), p.c.data());
          p.check(true, 3);
          if (dtype_of<decltype(c)> != f32) continue;  // of few rows gemm() may round what joins before it is added
          p.run();
          p.check(true, 3);
        }
      }
    }
  };
  extended(float(), float(), f32_tiles());
  extended(f16_t(), f16_t(), f32_tiles());
  extended(bf16_t(), bf16_t(), f32_tiles());
  extended(bf16_t(), float(), f32_tiles());
  if (bf16_tiles()) extended(bf16_t(), bf16_t(), *bf16_tiles()), extended(bf16_t(), float(), *bf16_tiles());
}

TEST_CASE("oneDNN is left alone inside a parallel region") {
  if (num_threads() == 1) return;
  Gemm g;
  g.m = g.n = g.k = 100;
  Product<float, float> p(g, {}, Integers(1));
  bool took = false;
  parallel_parts(2, [&](int part) {
    if (part == 0) took = matmul(p.g, p.a.data(), p.b.data(), p.c.data());
  });
  CHECK(!took);
}

TEST_CASE("the packed product gives the same bits on any number of threads") {
  const auto same = [](auto t, auto c, const Tiles& tiles) {
    for (const Size& s : {Size{300, 200, 70}, Size{20, 700, 3000}, Size{5, 40, 5000}, Size{17, 25, 1025}}) {
      Gemm g;
      g.m = s.m, g.n = s.n, g.k = s.k, g.beta = 1;
      Product<decltype(t), decltype(c)> p(g, {}, Reals(9));
      p.reset();
      packed_gemm(cpu_queue(), tiles, 1, p.g, p.a.data(), p.b.data(), p.c.data());
      p.check(false, 17);
      const auto alone = p.c;
      for (const int threads : {2, 3, 8}) {
        p.reset();
        packed_gemm(cpu_queue(), tiles, threads, p.g, p.a.data(), p.b.data(), p.c.data());
        CHECK(p.c.same_bits(alone));
      }
    }
  };
  same(float(), float(), f32_tiles());
  same(f16_t(), f16_t(), f32_tiles());
  same(bf16_t(), bf16_t(), f32_tiles());
  same(f16_t(), float(), f32_tiles());
  if (bf16_tiles()) same(bf16_t(), bf16_t(), *bf16_tiles()), same(bf16_t(), float(), *bf16_tiles());
}
