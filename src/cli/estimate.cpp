// estimate.cpp - times the products of a step's work log, and adds up what the rest takes.
#include "cli/estimate.h"

#include <algorithm>

#include "cli/measure.h"

namespace mezzo::cli {
namespace {

constexpr double kProductBudget = 0.04, kMemoryBudget = 0.2;  // seconds of measuring: each shape of product, the memory
constexpr std::int64_t kLeastCache = 32 << 20;                // bytes
constexpr double kLargestTimed = 1e10;                        // operations; a larger product runs at the rate of one this size
constexpr double kAttentionShare = 0.5;                       // of the products' rate that blocks of 64 x 64 scores reach
constexpr double kTimesMoved = 2.5;                           // of each tensor's bytes: written once, read once or twice
constexpr std::int64_t kUpdated = 4 << 20;                    // elements of the matrix that the optimizer is timed on
constexpr std::int64_t kTriedBytes = 64 << 20;                // a step of so little is run, ...
constexpr double kTriedMs = 50, kTrialBudget = 0.25;          // ... if it takes so little time; seconds of running

/// Seconds of one product; a very large one is timed by a part of it.
double seconds_of(ProductClock& clock, const kernels::WorkLog::Product& p) {
  ProductShape s{p.m, p.n, p.k, p.a, p.c, p.trans_a, p.trans_b};
  const double most = 2 * static_cast<double>(std::max(cpu_info().l3, kLeastCache));  // bytes of operands that no cache holds
  const auto too_large = [&] {
    const auto m = static_cast<double>(s.m), n = static_cast<double>(s.n), k = static_cast<double>(s.k);
    return 2 * m * n * k > kLargestTimed || (m * k + n * k) * static_cast<double>(size_of(s.a)) + m * n * static_cast<double>(size_of(s.c)) > most;
  };
  while (too_large()) {
    std::int64_t& longest = *std::max({&s.m, &s.n, &s.k}, [](const std::int64_t* a, const std::int64_t* b) { return *a < *b; });
    if (longest < 128) break;
    longest = (longest / 2 + 63) / 64 * 64;
  }
  const auto flops = [](const auto& x) { return static_cast<double>(x.m) * static_cast<double>(x.n) * static_cast<double>(x.k); };
  return flops(p) / flops(s) * clock.time(s, kProductBudget).median;
}

}  // namespace

StepTime estimate_step(const train::MemoryPlan& plan, const models::ModelOptions& model, const train::TrainOptions& options,
                       const train::PrecisionPlan& precision) {
  StepTime t;
  ProductClock clock(plan.peak > std::max(cpu_info().l3, kLeastCache) ? ProductClock::Operands::far : ProductClock::Operands::cached);
  double flops = 0;
  for (const auto& p : plan.products) {
    const auto count = static_cast<double>(p.count);
    t.products += 1e3 * count * seconds_of(clock, p);
    flops += count * 2 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  }
  if (flops > 0) t.attention = plan.attention_flops / (kAttentionShare * flops / t.products);
  const double bytes_per_ms = 1e6 * memory_bandwidth(kMemoryBudget).copy;
  // Besides the update, gradients are read for their norm, and 16-bit copies written.
  const auto bytes = [&](Memory m) { return static_cast<double>(plan.bytes[static_cast<std::size_t>(m)]); };
  const double trained = static_cast<double>(plan.trained);
  t.optimizer = trained / kUpdated * train::try_update(options, precision, kUpdated) +
                (static_cast<double>(size_of(precision.recipe.low)) * trained + bytes(Memory::cast_cache)) / bytes_per_ms;
  t.memory = kTimesMoved * static_cast<double>(plan.written) / bytes_per_ms;
  if (options.tune || plan.peak > kTriedBytes || t.ms() > kTriedMs) return t;

  const auto parts = train::try_steps(model, options, precision, kTrialBudget);
  const auto of = [&](Part p) { return parts[static_cast<std::size_t>(p)]; };
  t = {.products = of(Part::gemm_forward) + of(Part::gemm_input_grad) + of(Part::gemm_weight_grad) + of(Part::head_loss),
       .attention = of(Part::attention),
       .optimizer = of(Part::optimizer),
       .memory = of(Part::norm) + of(Part::activation) + of(Part::cast) + of(Part::other),
       .tried = true};
  return t;
}

}  // namespace mezzo::cli
