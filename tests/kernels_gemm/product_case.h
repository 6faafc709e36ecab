// product_case.h - one matrix product in guarded memory, and its comparison with the oracle.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <mezzo/runtime.h>

#include "kernels/guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/gemm.h"

namespace mezzo::test {

using kernels::cpu_queue;
using kernels::Gemm;

/// What a Gemm leaves open: how its operands lie in memory, and which terms it has.
struct Layout {
  std::int64_t pad_a = 0, pad_b = 0, pad_c = 0;  // elements between rows
  std::int64_t offset = 0;                       // elements after a multiple of 64 bytes
  bool share_a = false, share_b = false;         // batch stride 0
  std::int64_t gap = 0;                          // elements between the products of a batch
  bool bias = false, residual = false;
  std::int64_t tail = 0;  // k of a second pair of operands
};

inline std::string describe(const Gemm& g) {
  return fmt::format("{} to {}: m {} n {} k {} + {} batch {} trans {} {} ld {} {} {} alpha {} beta {} bias {} residual {}", name(g.a), name(g.c), g.m,
                     g.n, g.k, g.tail.k, g.batch, g.trans_a, g.trans_b, g.lda, g.ldb, g.ldc, g.alpha, g.beta, g.bias ? name(g.bias_dtype) : "no",
                     g.residual != nullptr);
}

/// T: operands, C: output and residual, B: bias.
template <class T, class C, class B = float> class Product {
 public:
  Gemm g;
  Guarded<T> a, b, tail_a, tail_b;
  Guarded<C> c, residual;
  Guarded<B> bias;

  /// `make` gives the elements of all operands, and what stands in C at first, as doubles.
  template <class Make> Product(const Gemm& given, const Layout& l, Make make)
      : g(with_strides(given, l)),
        a(extent(g.stride_a, g.trans_a ? g.k : g.m, g.lda, g.trans_a ? g.m : g.k), l.offset, make),
        b(extent(g.stride_b, g.trans_b ? g.n : g.k, g.ldb, g.trans_b ? g.k : g.n), l.offset, make),
        tail_a(l.tail == 0 ? 0 : extent(0, g.trans_a ? g.tail.k : g.m, g.tail.lda, g.trans_a ? g.m : g.tail.k), l.offset, make),
        tail_b(l.tail == 0 ? 0 : extent(0, g.trans_b ? g.n : g.tail.k, g.tail.ldb, g.trans_b ? g.tail.k : g.n), l.offset, make),
        c(extent(g.stride_c, g.m, g.ldc, g.n), l.offset, make),
        residual(l.residual ? c.size() : 0, l.offset, make),
        bias(l.bias ? g.n : 0, l.offset, make),
        before_(c) {
    if (l.bias) g.bias = bias.data(), g.bias_dtype = dtype_of<B>;
    if (l.residual) g.residual = residual.data();
    g.tail.a = tail_a.data(), g.tail.b = tail_b.data();
  }
  Product(const Product&) = delete;

  /// One product into C as it was at first.
  void run() {
    reset();
    kernels::gemm(cpu_queue(), g, a.data(), b.data(), c.data());
  }
  void reset() { std::memcpy(c.data(), before_.data(), static_cast<std::size_t>(c.size()) * sizeof(C)); }
  void set_before(std::int64_t i, C value) { before_[i] = value; }

  /// Every `step`-th element of every product, and the corners, against the oracle; what lies between C's rows against what stood there.
  /// exact: nothing is rounded but by the store.
  void check(bool exact, std::int64_t step = 1) const {
    INFO(describe(g), ", isa ", name(active_isa()));
    std::int64_t wrong = 0, touched = 0;
    std::string first;
    for (std::int64_t q = 0; q < g.batch; ++q) {
      for (std::int64_t e = 0; e < g.m * g.n; ++e) {
        const std::int64_t i = e / g.n, j = e % g.n;
        const bool corner = (i == 0 || i == g.m - 1) && (j == 0 || j == g.n - 1);
        if (e % step != 0 && !corner) continue;
        const auto want = kernels::ref::gemm_element<T, C, B>(g, a.data(), b.data(), before_.data(), q, i, j);
        const double got = value(c[q * g.stride_c + i * g.ldc + j]);
        const bool same = got == value(rounded<C>(want.value)) || (std::isnan(got) && std::isnan(want.value));
        if (same || (!exact && std::abs(got - want.value) <= tolerance(want))) continue;
        if (wrong++ == 0)
          first = fmt::format("({}, {}) of product {}: got {}, want {}, tolerance {:.3g}", i, j, q, got, want.value, exact ? 0 : tolerance(want));
      }
    }
    CHECK_MESSAGE(wrong == 0, wrong, " wrong, first ", first);
    for (std::int64_t e = 0; e < c.size(); ++e) {
      const std::int64_t in_product = g.stride_c ? e % g.stride_c : e;
      const bool inside = in_product % g.ldc < g.n && in_product / g.ldc < g.m;
      touched += !inside && std::memcmp(&c[e], &before_[e], sizeof(C)) != 0;
    }
    CHECK_MESSAGE(touched == 0, touched, " elements between C's rows were written");
    CHECK(c.intact());
  }

  /// k products and sums, and the terms after them, each rounded in the format of the arithmetic; then the store. The bf16 dot flushes
  /// what is below 2^-126 in every sum.
  double tolerance(const kernels::ref::GemmElement& e) const {
    const double u = dtype_of<T> == f64 ? 0x1p-53 : kUnit32, k = static_cast<double>(g.k + g.tail.k);
    return (k + 6) * u * e.size + unit<C>() * std::abs(e.value) + tiny<C>() + (dtype_of<T> == bf16 ? k * std::abs(g.alpha) * 0x1p-126 : 0);
  }

 private:
  std::int64_t extent(std::int64_t stride, std::int64_t rows, std::int64_t ld, std::int64_t cols) const {
    return g.batch == 0 || rows == 0 ? 0 : (g.batch - 1) * stride + (rows - 1) * ld + cols;
  }
  static Gemm with_strides(Gemm g, const Layout& l) {
    g.a = g.b = dtype_of<T>;
    g.c = dtype_of<C>;
    g.lda = (g.trans_a ? g.m : g.k) + l.pad_a;
    g.ldb = (g.trans_b ? g.k : g.n) + l.pad_b;
    g.ldc = g.n + l.pad_c;
    g.tail.k = l.tail;
    g.tail.lda = (g.trans_a ? g.m : l.tail) + l.pad_b;
    g.tail.ldb = (g.trans_b ? l.tail : g.n) + l.pad_a;
    g.stride_a = l.share_a || g.batch == 1 ? 0 : (g.trans_a ? g.k : g.m) * g.lda + l.gap;
    g.stride_b = l.share_b || g.batch == 1 ? 0 : (g.trans_b ? g.n : g.k) * g.ldb + l.gap;
    g.stride_c = g.batch == 1 ? 0 : g.m * g.ldc + l.gap;
    return g;
  }
  Guarded<C> before_;
};

/// Cheap numbers for large operands, the same for the same seed (Knuth's MMIX generator).
class Bits {
 public:
  explicit Bits(unsigned seed) : state_(seed) {}
  std::uint64_t next() { return (state_ = state_ * 6364136223846793005u + 1442695040888963407u) >> 32; }

 private:
  std::uint64_t state_;
};

/// Integers from -2 to 2: their products and sums are exact in f32 up to 2^24, in whatever order.
struct Integers : Bits {
  using Bits::Bits;
  double operator()() { return static_cast<double>(next() * 5 >> 32) - 2; }
};

/// Reals of [-1, 1).
struct Reals : Bits {
  using Bits::Bits;
  double operator()() { return static_cast<double>(next()) * 0x1p-31 - 1; }
};

}  // namespace mezzo::test
