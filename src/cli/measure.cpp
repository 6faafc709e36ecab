// measure.cpp
#include "cli/measure.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include <mezzo/runtime.h>

#include "kernels/kernels.h"

namespace mezzo::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// The fastest of the runs that fit into `budget` seconds (three at least), after one that warms up.
template <class F> double fastest(double budget, F&& run) {
  run();
  double best = std::numeric_limits<double>::infinity();
  const auto begin = Clock::now();
  for (int i = 0; i < 3 || seconds_since(begin) < budget; ++i) {
    const auto start = Clock::now();
    run();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

}  // namespace

double product_seconds(const ProductShape& s, double budget) {
  auto& q = kernels::cpu_queue();
  const auto block = [&](std::int64_t elements, std::uint64_t seed) {
    Block b = q.scratch(static_cast<std::size_t>(elements) * size_of(s.a));
    kernels::normal(q, s.a, b.as<void>(), elements, 0, 1, seed, 0);
    return b;
  };
  const Block a = block(s.m * s.k, 1), b = block(s.n * s.k, 2), c = q.scratch(static_cast<std::size_t>(s.m * s.n) * size_of(s.c));
  kernels::Gemm g;
  g.m = s.m;
  g.n = s.n;
  g.k = s.k;
  g.a = g.b = s.a;
  g.c = s.c;
  g.trans_a = s.trans_a;
  g.trans_b = s.trans_b;
  g.lda = s.trans_a ? s.m : s.k;
  g.ldb = s.trans_b ? s.k : s.n;
  g.ldc = s.n;
  return fastest(budget, [&] { kernels::gemm(q, g, a.as<void>(), b.as<void>(), c.as<void>()); });
}

double peak_gflops(Dtype dtype, double budget) {
  // A thread's share of each fits its L2; which one a library likes best differs.
  const std::array<ProductShape, 4> kShapes{
      {{256, 256, 256, dtype, dtype}, {384, 512, 512, dtype, dtype}, {512, 512, 1024, dtype, dtype}, {1024, 512, 512, dtype, dtype}}};
  double best = 0;
  for (const auto& s : kShapes) {
    const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
    best = std::max(best, flops / product_seconds(s, budget / kShapes.size()) / 1e9);
  }
  return best;
}

Bandwidth memory_bandwidth(double budget) {
  auto& q = kernels::cpu_queue();
  const auto& cpu = cpu_info();
  // Four times the last cache, but never more than a sixteenth of the memory.
  const std::int64_t bytes = std::min(std::clamp<std::int64_t>(4 * cpu.l3, 64 << 20, 512 << 20), std::max<std::int64_t>(cpu.memory / 16, 1 << 20));
  const std::int64_t n = bytes / static_cast<std::int64_t>(sizeof(float));
  const Block x = q.scratch(static_cast<std::size_t>(n) * sizeof(float)), y = q.scratch(static_cast<std::size_t>(n) * sizeof(float));
  kernels::uniform(q, Dtype::f32, x.as<float>(), n, 1, 0);
  kernels::GradStats stats;
  const double read = fastest(budget / 2, [&] { kernels::grad_stats(q, Dtype::f32, x.as<float>(), n, 1, &stats); });
  const double copy =
      fastest(budget / 2, [&] { kernels::binary_scalar(q, kernels::Binary::mul, Dtype::f32, x.as<float>(), 1.5, false, y.as<float>(), n); });
  const auto rate = [&](double passes, double seconds) { return passes * static_cast<double>(bytes) / seconds / 1e9; };
  return {rate(1, read), rate(2, copy)};
}

}  // namespace mezzo::cli
