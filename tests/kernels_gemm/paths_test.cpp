// paths_test.cpp - each way to compute a product, called directly: whichever `gemm` prefers, all are right.
#include "core/parallel.h"
#include "kernels/gemm/onednn.h"
#include "kernels/gemm/packed.h"
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
constexpr Size kSizes[] = {{96, 64, 80}, {37, 65, 33}, {130, 100, 47}, {1, 64, 256}, {64, 1, 64}, {200, 384, 384}};
constexpr int kAll = 6 * 7, kPlain = 6 * 3;  // of the variants, three have neither bias nor residual

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

TEST_CASE("oneDNN's f32 product takes what has no epilogue") { CHECK(taken<float, float>(onednn_sgemm) == (kOneDnn ? kPlain : 0)); }

TEST_CASE("weight gradients: oneDNN's undeclared bf16 product, its matmul, and the packed one") {
  const bool native = native_gemm(bf16);
  CHECK(taken<bf16_t, float>(onednn_gemm_bf16) == (kOneDnn && native ? kPlain : 0));
  CHECK((taken<bf16_t, float>(matmul) > 0) == (kOneDnn && native));
  const Tiles& tiles = native ? *bf16_tiles() : f32_tiles();
  const auto packed = [&](const Gemm& g, const void* a, const void* b, void* c) { return packed_gemm(cpu_queue(), tiles, 2, g, a, b, c), true; };
  CHECK(taken<bf16_t, float>(packed) == kAll);
}

TEST_CASE("oneDNN's bf16 matmul takes every epilogue, and runs again from its cache") {
  const int first = taken<bf16_t, bf16_t>(matmul);
  CHECK((first > 0) == (kOneDnn && native_gemm(bf16)));
  CHECK(taken<bf16_t, bf16_t>(matmul) == first);
  CHECK(taken<bf16_t, bf16_t, bf16_t>(matmul) == first);
}

TEST_CASE("the thin product, of one row to eight, gives the same bits on any number of threads") {
  const auto thin = [](auto t, auto c) {
    const Dtype dtype = dtype_of<decltype(t)>;
    const int before = num_threads();
    for (std::int64_t m = 1; m <= kThinRows; ++m) {
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

TEST_CASE("oneDNN is left alone inside a parallel region") {
  if (num_threads() == 1) return;
  Gemm g;
  g.m = g.n = g.k = 100;
  Product<float, float> p(g, {}, Integers(1));
  bool took = false;
  parallel_parts(2, [&](int part) {
    if (part == 0) took = onednn_sgemm(p.g, p.a.data(), p.b.data(), p.c.data());
  });
  CHECK(!took);
}

TEST_CASE("the packed product gives the same bits on any number of threads") {
  const auto same = [](auto t, auto c, const Tiles& tiles) {
    for (const Size& s : {Size{300, 200, 70}, Size{20, 700, 3000}, Size{5, 40, 5000}}) {
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
  if (bf16_tiles()) same(bf16_t(), bf16_t(), *bf16_tiles());
}
