// f64.cpp - the f64 product: blocks of rows and columns that the compiler vectorises for the baseline.
#include "kernels/gemm/f64.h"

#include <algorithm>

#include "core/parallel.h"

namespace mezzo::kernels {
namespace {

constexpr std::int64_t kRows = 4, kCols = 64, kDepth = 256;  // the sums in L1, the rows of B that they need in L2

/// sums (kRows, kCols) += op(A)[i .., p ..] B[p .., j ..] for m rows and `depth` steps; b (depth, kCols), rows ldb apart.
void add_block(double* __restrict sums, const double* a, std::int64_t row_step, std::int64_t k_step, const double* __restrict b, std::int64_t ldb,
               std::int64_t m, std::int64_t n, std::int64_t depth) {
  for (std::int64_t p = 0; p < depth; ++p) {
    const double* row = b + p * ldb;
    for (std::int64_t i = 0; i < m; ++i) {
      const double x = a[i * row_step + p * k_step];
      double* out = sums + i * kCols;
      for (std::int64_t j = 0; j < n; ++j) out[j] += x * row[j];
    }
  }
}

double bias_at(const Gemm& g, std::int64_t j) {
  return g.bias_dtype == f64 ? static_cast<const double*>(g.bias)[j] : static_cast<double>(static_cast<const float*>(g.bias)[j]);
}

}  // namespace

void f64_gemm(Queue& queue, int threads, const Gemm& g, const double* a, const double* b, double* c) {
  const std::int64_t row_step = g.trans_a ? 1 : g.lda, k_step = g.trans_a ? g.lda : 1;
  Block transposed;
  std::int64_t ldb = g.ldb;
  if (g.trans_b) {  // (n, k) to (k, n)
    transposed = queue.scratch(static_cast<std::size_t>(g.n * g.k) * sizeof(double));
    double* out = transposed.as<double>();
    parallel_parts(threads, [&](int part) {
      const Range rows = part_range(g.k, threads, part);
      for (std::int64_t p = rows.begin; p < rows.end; ++p) {
        for (std::int64_t j = 0; j < g.n; ++j) out[p * g.n + j] = b[j * g.ldb + p];
      }
    });
    b = out;
    ldb = g.n;
  }
  parallel_parts(threads, [&](int part) {
    const Range rows = part_range(g.m, threads, part, kRows);
    for (std::int64_t j = 0; j < g.n; j += kCols) {
      const std::int64_t n = std::min(kCols, g.n - j);
      for (std::int64_t i = rows.begin; i < rows.end; i += kRows) {
        const std::int64_t m = std::min(kRows, rows.end - i);
        double sums[kRows * kCols] = {};
        for (std::int64_t p = 0; p < g.k; p += kDepth) {
          add_block(sums, a + i * row_step + p * k_step, row_step, k_step, b + p * ldb + j, ldb, m, n, std::min(kDepth, g.k - p));
        }
        for (std::int64_t r = 0; r < m; ++r) {
          double* out = c + (i + r) * g.ldc + j;
          const double* residual = g.residual ? static_cast<const double*>(g.residual) + (i + r) * g.ldc + j : nullptr;
          for (std::int64_t q = 0; q < n; ++q) {
            double v = g.alpha * sums[r * kCols + q];
            if (g.beta != 0) v += g.beta * out[q];
            if (g.bias) v += bias_at(g, j + q);
            if (residual) v += residual[q];
            out[q] = v;
          }
        }
      }
    }
  });
}

}  // namespace mezzo::kernels
