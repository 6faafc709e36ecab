// judge.cpp - from a step's report to a divergence, or none.
#include "train/judge.h"

#include <cmath>

#include <fmt/core.h>

namespace mezzo::train {
namespace {

constexpr int kMostSkips = 100;     // in a row; dynamic scaling needs at most 40 to come down from its start to 2^-24
constexpr int kMostNotFinite = 10;  // losses in a row, where a step can be skipped: a hard batch may be one, but no loss scale changes the loss

/// What would help a new run, and how this one goes on: its --lr stays what it is, and the same steps would end the same.
std::string going_on(const Circumstances& c, std::string_view remedy, std::int64_t good) {
  const auto steps = checkpoint_steps(c.options.out);
  if (steps.empty()) return std::string(remedy);
  const bool tried = c.options.on_divergence == OnDivergence::rollback || c.options.on_divergence == OnDivergence::fallback;
  if (tried || c.options.fuse_optimizer || steps.front() > good) return fmt::format("{}, in a new run", remedy);
  return fmt::format("{}, in a new run; --resume-step goes on from a checkpoint of up to step {}, with --on-divergence rollback past the data since",
                     remedy, good);
}

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
    d.hint = going_on(c, "a lower --lr or a longer --warmup", d.good);
    if (c.options.on_divergence != OnDivergence::warn) return d;
    c.watch.warn(state.step, d.reason);
    return std::nullopt;
  }
  if (r.applied) return std::nullopt;

  const auto place = [&] { return first_bad_tensor(c.model, r); };
  if (c.plan.recipe.low != Dtype::f16) {
    d.reason = fmt::format("the loss is {}, and {}; {}; nothing was updated", in_words(report.loss), place(), d.overflow.text);
    d.hint = going_on(c, "a lower --lr, a longer --warmup or a smaller --clip-norm", d.good);
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

std::optional<Divergence> judge_validation(const RunState& state, const Circumstances& c) {
  const bool f16 = c.plan.recipe.low == Dtype::f16;
  Divergence d{
      .reason = "the validation loss is not finite",
      .hint = going_on(c, f16 ? "bf16 has f32's range; or a lower --lr, a longer --warmup" : "a lower --lr or a longer --warmup", last_good(state)),
      .good = last_good(state),
      .range = f16,
      .losses = state.trend.recent};
  // In f16 a training loss that is not finite is counted, and judged when there are too many: unless the run ends before.
  const bool counted = f16 && state.trend.not_finite > 0 && state.step < c.options.steps;
  if (c.options.on_divergence != OnDivergence::warn && !counted) return d;
  c.watch.warn(state.step, d.reason + ": the model has diverged" + (f16 ? ", or f16 does not reach its numbers" : ""));
  return std::nullopt;
}

}  // namespace mezzo::train
