// estimate.cpp
#include "cli/estimate.h"

#include <algorithm>
#include <array>

#include "cli/measure.h"
#include "kernels/kernels.h"

namespace mezzo::cli {
namespace {

constexpr double kProductBudget = 0.05, kMemoryBudget = 0.2;  // seconds of measuring: each product, the memory
constexpr std::int64_t kRows = 2048;                          // a longer batch runs at the same rate
constexpr std::int64_t kHeadRows = 256;                       // the head is run in chunks of so many tokens
constexpr double kAttentionShare = 0.6;                       // of the products' rate that blocks of 64 x 64 scores reach
constexpr double kPassesPerLayer = 32;                        // C-wide rows read or written a token and layer: two norms, GELU, forward and backward
constexpr double kOptimizerBytes = 32;                        // a parameter: gradient twice, weight and two moments read and written

}  // namespace

double estimate_step_ms(const models::GptOptions& m, const train::TrainOptions& o, const train::PrecisionPlan& plan) {
  const Dtype dtype = plan.recipe.low;
  const std::int64_t c = m.width, tokens = o.batch * o.seq, rows = std::min(tokens, kRows);
  const double layers = m.layers, micro = o.accumulate;

  double forward = 0, flops = 0;  // of a micro-batch's products
  const auto add = [&](ProductShape s, double times) {
    const double repeated = times * static_cast<double>(tokens) / static_cast<double>(s.m);
    forward += repeated * product_seconds(dtype, s, kProductBudget);
    flops += repeated * 2 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  };
  add({rows, 3 * c, c}, layers);
  add({rows, c, c}, layers);
  add({rows, 4 * c, c}, layers);
  add({rows, c, 4 * c}, layers);
  add({std::min(tokens, kHeadRows), m.vocab, c}, 1);

  const double attention_flops =
      7.0 * static_cast<double>(tokens) * static_cast<double>(o.seq) * static_cast<double>(c) * layers;  // causal half; backward is 2.5 forwards
  const double attention = attention_flops / (kAttentionShare * flops / forward);
  const Bandwidth memory = memory_bandwidth(kMemoryBudget);
  const double passes = static_cast<double>(tokens * c) * layers * kPassesPerLayer * static_cast<double>(size_of(dtype)) / (1e9 * memory.copy);
  const double optimizer = static_cast<double>(models::parameter_count(m)) * kOptimizerBytes / (1e9 * memory.copy);
  return 1e3 * (micro * (3 * forward + attention + passes) + optimizer);
}

}  // namespace mezzo::cli
