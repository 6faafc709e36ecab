// measure.cpp - times products and passes over memory, a fraction of a second each.
#include "cli/measure.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <vector>

#include <mezzo/runtime.h>

#include "kernels/kernels.h"

namespace mezzo::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Of the runs that fit into `budget` seconds (three at least), after one that warms up.
template <class F> Timing timed(double budget, F&& run) {
  run();
  std::vector<double> all;
  const auto begin = Clock::now();
  while (all.size() < 3 || seconds_since(begin) < budget) {
    const auto start = Clock::now();
    run();
    all.push_back(seconds_since(start));
  }
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::nth_element(all.begin(), middle, all.end());
  return {.fastest = *std::min_element(all.begin(), all.end()), .median = *middle};
}

/// At least `bytes` of memory that holds numbers of ordinary size in every dtype.
void grow(Block& block, std::int64_t bytes) {
  if (static_cast<std::int64_t>(block.bytes()) >= bytes) return;
  constexpr std::int64_t kPattern = 64 << 10;  // bf16's bits are ordinary numbers as f16 and, in pairs, as f32
  block = Block();
  block = kernels::cpu_queue().scratch(static_cast<std::size_t>(bytes));
  auto* const begin = block.as<std::byte>();
  kernels::normal(kernels::cpu_queue(), bf16, begin, std::min(bytes, kPattern) / 2, 0, 1, 1, 0);
  for (std::int64_t at = kPattern; at < bytes; at += kPattern)
    std::memcpy(begin + at, begin, static_cast<std::size_t>(std::min(kPattern, bytes - at)));
}

}  // namespace

ProductClock::ProductClock(Operands where) : spread_(where == Operands::far ? 2 * std::max<std::int64_t>(cpu_info().l3, 32 << 20) : 0) {}

Timing ProductClock::time(const ProductShape& s, double budget) {
  const auto bytes = [](std::int64_t elements, Dtype t) {
    constexpr std::int64_t kLine = 64;
    return (elements * static_cast<std::int64_t>(size_of(t)) + kLine - 1) / kLine * kLine;
  };
  const std::int64_t b_bytes = bytes(s.n * s.k, s.a), c_bytes = bytes(s.m * s.n, s.c);
  grow(a_, bytes(s.m * s.k, s.a));
  grow(b_, std::max(b_bytes, spread_));
  grow(c_, std::max(c_bytes, spread_));
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
  std::int64_t at_b = 0, at_c = 0;
  return timed(budget, [&] {
    kernels::gemm(kernels::cpu_queue(), g, a_.as<void>(), b_.as<std::byte>() + at_b, c_.as<std::byte>() + at_c);
    at_b = at_b + 2 * b_bytes <= spread_ ? at_b + b_bytes : 0;
    at_c = at_c + 2 * c_bytes <= spread_ ? at_c + c_bytes : 0;
  });
}

double peak_gflops(Dtype dtype, double budget) {
  // A thread's share of each fits its L2; which one a library likes best differs.
  const std::array<ProductShape, 4> kShapes{
      {{256, 256, 256, dtype, dtype}, {384, 512, 512, dtype, dtype}, {512, 512, 1024, dtype, dtype}, {1024, 512, 512, dtype, dtype}}};
  ProductClock clock(ProductClock::Operands::cached);
  double best = 0;
  for (const auto& s : kShapes) {
    const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
    best = std::max(best, flops / clock.time(s, budget / kShapes.size()).fastest / 1e9);
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
  const double read = timed(budget / 2, [&] { kernels::grad_stats(q, Dtype::f32, x.as<float>(), n, 1, &stats); }).fastest;
  const double copy =
      timed(budget / 2, [&] { kernels::binary_scalar(q, kernels::Binary::mul, Dtype::f32, x.as<float>(), 1.5, false, y.as<float>(), n); }).fastest;
  const auto rate = [&](double passes, double seconds) { return passes * static_cast<double>(bytes) / seconds / 1e9; };
  return {rate(1, read), rate(2, copy)};
}

}  // namespace mezzo::cli
