// thin_test.cpp - products of few rows with a matrix in blocks against sums in double over the plain decoding.
#include <cmath>
#include <random>

#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/blocks.h"
#include "kernels/gemm/thin.h"
#include "kernels/ref/blocks.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

struct Case {
  Format format;
  std::int64_t m, n, k;
  bool bias, residual;
};

/// x (m, k), w (n, k) in blocks; bias (n) in f32; residual and c (m, n) in T.
template <class T> void check(const Case& s, double epsilon) {
  const auto [title, elements, bytes] = facts(s.format);
  const auto name = title;
  CAPTURE(name);
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  Normals normal(static_cast<unsigned>(s.m * 131 + s.n * 7 + s.k), 0x1p-6);  // K formats' weights reach thousands, f16 65504
  const std::int64_t row_bytes = s.k / elements * bytes;
  Guarded<std::uint8_t> blocks(s.n * row_bytes, 1);
  std::mt19937 engine(5);
  for (std::int64_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<std::uint8_t>(engine());
  const auto tame = [&](std::int64_t high_byte) { blocks[high_byte] = static_cast<std::uint8_t>(0x38 | (blocks[high_byte] & 3)); };
  for (std::int64_t b = 0; b < blocks.size(); b += bytes) {  // scales and minima: an f16 in [1/2, 1)
    tame(b + (s.format == Format::q6_k ? 209 : 1));
    tame(b + 3);
  }
  const Guarded<T> x(s.m * s.k, 1, normal);
  const Guarded<float> bias(s.n, 2, normal);
  const Guarded<T> residual(s.m * s.n, 1, normal);
  Guarded<T> c(s.m * s.n, 3);

  Gemm g;
  g.a = g.b = g.c = dtype_of<T>;
  g.m = s.m;
  g.n = g.ldc = s.n;
  g.k = g.lda = g.ldb = s.k;
  g.trans_b = true;
  if (s.bias) g.bias = bias.data();
  if (s.residual) g.residual = residual.data();
  REQUIRE(thin_product(cpu_queue(), s.format, g, x.data(), blocks.data(), c.data()));
  CHECK(c.intact());

  std::vector<double> w(static_cast<std::size_t>(s.k));
  double worst = 0;
  for (std::int64_t j = 0; j < s.n; ++j) {
    for (std::int64_t p = 0; p < s.k; p += elements) ref::dequantize_block(s.format, blocks.data() + j * row_bytes + p / elements * bytes, &w[p]);
    for (std::int64_t i = 0; i < s.m; ++i) {
      double sum = 0, size = 0;
      const auto term = [&](double t) { sum += t, size += std::fabs(t); };
      for (std::int64_t p = 0; p < s.k; ++p) term(value(x[i * s.k + p]) * w[static_cast<std::size_t>(p)]);
      if (s.bias) term(value(bias[j]));
      if (s.residual) term(value(residual[i * s.n + j]));
      // One rounding on store, after f32 sums: chains of at most 4096 / 4 terms, their join and that of two pieces, bias and residual.
      const double bound = std::fabs(sum) * epsilon / 2 + size * kUnit32 * (static_cast<double>(std::min<std::int64_t>(s.k, kThinPiece)) / 4 + 12);
      const double off = std::fabs(value(c[i * s.n + j]) - sum) / bound;
      worst = std::max(worst, std::isnan(off) ? INFINITY : off);
    }
  }
  CHECK(worst <= 1);
}

}  // namespace

TEST_CASE("thin products: every format, few rows, odd sizes, bias and residual") {
  for (int f = 0; f < static_cast<int>(Format::count); ++f) {
    const auto format = static_cast<Format>(f);
    const std::int64_t e = facts(format).elements;
    for (const Case& s : {Case{format, 1, 1, e, false, false}, Case{format, 1, 67, 3 * e, true, true}, Case{format, 3, 64, 2 * e, true, false},
                          Case{format, kThinRows, 130, 5 * e, false, true}, Case{format, 2, 9, 4096 + e, true, true}}) {
      check<float>(s, format_info(f32).epsilon);
      check<f16_t>(s, format_info(f16).epsilon);
      check<bf16_t>(s, format_info(bf16).epsilon);
    }
  }
}

TEST_CASE("thin products: the same bits with any number of threads, and others are left alone") {
  const int before = num_threads();
  const std::int64_t n = 777, k = 512;
  Normals normal(3);
  const Guarded<float> w(n * k, 0, normal), x(2 * k, 1, normal);
  Guarded<std::uint8_t> blocks(n * k / 32 * 34, 0);
  quantize(cpu_queue(), Format::q8_0, w.data(), blocks.data(), n * k);
  Gemm g;
  g.m = 2;
  g.n = g.ldc = n;
  g.k = g.lda = g.ldb = k;
  g.trans_b = true;
  Guarded<float> one(2 * n, 0), c(2 * n, 0);
  set_num_threads(1);
  REQUIRE(thin_product(cpu_queue(), Format::q8_0, g, x.data(), blocks.data(), one.data()));
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    REQUIRE(thin_product(cpu_queue(), Format::q8_0, g, x.data(), blocks.data(), c.data()));
    CHECK(c.same_bits(one));
  }
  set_num_threads(before);
  g.m = kThinRows + 1;
  CHECK_FALSE(thin_product(cpu_queue(), Format::q8_0, g, nullptr, nullptr, nullptr));
}
