// estimate.cpp
#include "cli/estimate.h"

#include <algorithm>

#include "cli/measure.h"

namespace mezzo::cli {
namespace {

constexpr double kProductBudget = 0.04, kMemoryBudget = 0.2;  // seconds of measuring: each shape of product, the memory
constexpr double kLargestTimed = 2e10;                        // operations; a larger product runs at the rate of one this size
constexpr double kAttentionShare = 0.5;                       // of the products' rate that blocks of 64 x 64 scores reach
constexpr double kTimesMoved = 2.5;                           // of each tensor's bytes: written once, read once or twice

/// Seconds of one product; a very large one is timed by a part of it.
double seconds_of(const kernels::WorkLog::Product& p) {
  ProductShape s{p.m, p.n, p.k, p.a, p.c, p.trans_a, p.trans_b};
  double times = 1;
  const double flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  if (flops > kLargestTimed) {
    std::int64_t& longest = *std::max({&s.m, &s.n, &s.k}, [](const std::int64_t* a, const std::int64_t* b) { return *a < *b; });
    const auto part = std::max<std::int64_t>(64, static_cast<std::int64_t>(static_cast<double>(longest) * kLargestTimed / flops) / 64 * 64);
    times = static_cast<double>(longest) / static_cast<double>(part);
    longest = part;
  }
  return times * product_seconds(s, kProductBudget);
}

}  // namespace

double estimate_step_ms(const train::MemoryPlan& plan) {
  double products = 0, flops = 0;
  for (const auto& p : plan.products) {
    const auto count = static_cast<double>(p.count);
    products += count * seconds_of(p);
    flops += count * 2 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  }
  const double attention = flops > 0 ? plan.attention_flops / (kAttentionShare * flops / products) : 0;
  const Bandwidth memory = memory_bandwidth(kMemoryBudget);
  const auto of = [&](Memory m) { return static_cast<double>(plan.bytes[static_cast<std::size_t>(m)]); };
  // The optimizer reads gradients twice, and reads and writes the rest.
  const double optimizer =
      2 * (of(Memory::gradients) + of(Memory::weights) + of(Memory::masters) + of(Memory::optimizer) + of(Memory::cast_cache) / 2);
  const double moved = kTimesMoved * static_cast<double>(plan.written) + optimizer;
  return 1e3 * (products + attention + moved / (1e9 * memory.copy));
}

}  // namespace mezzo::cli
