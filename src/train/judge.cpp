// judge.cpp - from a step's report to a divergence, or none.
#include "train/judge.h"

#include <cmath>

#include <fmt/core.h>

namespace mezzo::train {
namespace {

constexpr int kMostSkips = 100;     // in a row; dynamic scaling needs at most 40 to come down from its start to 2^-24
constexpr int kMostNotFinite = 10;  // losses in a row, where a step can be skipped: a hard batch may be one, but no loss scale changes the loss

std::string in_words(double loss) { return std::isnan(loss) ? "NaN" : fmt::format("{}", loss); }

}  // namespace

std::optional<Divergence> judge(RunState& state, const StepReport& report, RunWatch::Explanation overflow, const Circumstances& c) {
  const auto& r = report.result;
  std::vector<double> losses = state.trend.recent;
  losses.insert(losses.end(), state.trend.rise.begin(), state.trend.rise.end());
  losses.push_back(report.loss);
  const LossTrend::Rise risen = state.trend.add(state.step, report.loss);
  state.skipped += r.applied ? 0 : 1;
  state.skips_in_a_row = r.applied ? 0 : state.skips_in_a_row + 1;

  Divergence d{.reason = risen.why,
               .hint = {},
               .good = risen.why.empty() ? last_good(state) : risen.good,
               .overflow = std::move(overflow),
               .losses = std::move(losses)};
  if (!risen.why.empty()) {
    d.hint = fmt::format(
        "a lower --lr or a longer --warmup; --resume-step goes on from a checkpoint of up to step {}, --on-divergence rollback by itself", d.good);
    if (c.options.on_divergence != OnDivergence::warn) return d;
    c.watch.warn(state.step, d.reason);
    return std::nullopt;
  }
  if (r.applied) return std::nullopt;

  const auto place = [&] { return first_bad_tensor(c.model, r); };
  if (c.plan.recipe.low != Dtype::f16) {
    d.reason = fmt::format("the loss is {}, and {}; {}; nothing was updated", in_words(report.loss), place(), d.overflow.text);
    d.hint = "a lower --lr, a longer --warmup or a smaller --clip-norm";
    if (!checkpoint_steps(c.options.out).empty()) d.hint += "; --resume continues from the newest checkpoint";
  } else if (state.skips_in_a_row >= kMostSkips) {
    d.reason = fmt::format("{} steps in a row were skipped, at loss scale {}; {}; {}", kMostSkips, r.scale, place(), d.overflow.text);
    d.hint = "bf16 has f32's range and needs no loss scale; or a lower --lr, a smaller --clip-norm";
  } else if (state.trend.not_finite >= kMostNotFinite) {
    d.reason =
        fmt::format("the loss of {} steps in a row is not finite, and no loss scale changes that; {}; {}", kMostNotFinite, place(), d.overflow.text);
    d.hint = "bf16 has f32's range; or a lower --lr, a longer --warmup";
  } else {
    return std::nullopt;
  }
  d.range = c.plan.recipe.low == Dtype::f16;
  return d;
}

}  // namespace mezzo::train
