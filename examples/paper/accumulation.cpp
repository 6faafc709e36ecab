// accumulation.cpp - the third technique of "Mixed Precision Training" (arXiv 1710.03740): why products of 16-bit numbers are added up in f32.
//
// Dot products of f16 and of bf16 numbers with accumulators of each format, by the reference template (each term is rounded once, to the
// accumulator). The error is relative to the sum of the terms' sizes, the root of its mean square over 100 products: of normal numbers, whose sum
// stays small, and of their sizes, whose sum grows with K until terms are lost in it.
#include <cmath>
#include <cstdio>
#include <vector>

#include <mezzo/mezzo.h>

#include "kernels/ref/dot.h"

using namespace mezzo;
using kernels::ref::dot;

namespace {

template <class T> std::vector<T> normals(std::int64_t n, bool sizes, Generator& random) {
  std::vector<T> x;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto z = static_cast<float>(random.normal());
    x.push_back(T(sizes ? std::abs(z) : z));
  }
  return x;
}

struct Errors {
  double f16 = 0, bf16 = 0, f32 = 0;
};
template <class T> Errors errors(std::int64_t k, bool sizes) {
  constexpr int kProducts = 100;
  Generator random(static_cast<std::uint64_t>(k));
  Errors sum;
  for (int i = 0; i < kProducts; ++i) {
    const auto a = normals<T>(k, sizes, random), b = normals<T>(k, sizes, random);
    const double exact = dot<double>(a.data(), b.data(), k);
    double size = 0;
    for (std::int64_t j = 0; j < k; ++j)
      size += std::abs(static_cast<double>(static_cast<float>(a[j])) * static_cast<double>(static_cast<float>(b[j])));
    const auto square = [&](double got) { return (got - exact) / size * ((got - exact) / size) / kProducts; };
    sum.f16 += square(static_cast<double>(static_cast<float>(dot<f16_t>(a.data(), b.data(), k))));
    sum.bf16 += square(static_cast<double>(static_cast<float>(dot<bf16_t>(a.data(), b.data(), k))));
    sum.f32 += square(static_cast<double>(dot<float>(a.data(), b.data(), k)));
  }
  return {std::sqrt(sum.f16), std::sqrt(sum.bf16), std::sqrt(sum.f32)};
}

template <class T> float ones(std::int64_t k) {
  const std::vector<T> one(static_cast<std::size_t>(k), T(1.0f));
  return static_cast<float>(dot<T>(one.data(), one.data(), k));
}

}  // namespace

int main() {
  std::printf("4096 ones add up to %.0f in f16, %.0f in bf16, %.0f in f32\n\n", static_cast<double>(ones<f16_t>(4096)),
              static_cast<double>(ones<bf16_t>(4096)), static_cast<double>(ones<float>(4096)));
  for (const bool sizes : {false, true}) {
    std::printf("%s\n", sizes ? "\ntheir sizes" : "normal numbers");
    std::printf("operands          f16                         bf16\naccumulator   f16      bf16     f32       f16      bf16     f32\n");
    for (const std::int64_t k : {16, 64, 256, 1024, 4096}) {
      const Errors a = errors<f16_t>(k, sizes), b = errors<bf16_t>(k, sizes);
      std::printf("K = %-6d %.1e  %.1e  %.1e   %.1e  %.1e  %.1e\n", static_cast<int>(k), a.f16, a.bf16, a.f32, b.f16, b.bf16, b.f32);
    }
  }
}
