// judge.h - whether a run can go on as it is after a step.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/watch.h"

namespace mezzo::train {

/// Why it cannot.
struct Divergence {
  std::string reason, hint;
  std::int64_t good = 0;                ///< the last step whose checkpoint is of before
  bool range = false;                   ///< f16's range gave out
  RunWatch::Explanation overflow = {};  ///< where it began
  std::vector<double> losses = {};      ///< up to it
};

/// What a step is judged by.
struct Circumstances {
  const TrainOptions& options;
  const PrecisionPlan& plan;
  const models::LanguageModel& model;
  RunWatch& watch;  ///< told of a loss that has risen, where that is a warning only
};

/// Takes note in the state of a step's loss and of whether it was applied; says why the run cannot go on like this, if it cannot. A gradient that is
/// not finite is in f16 an overflow, which the next scale or batch may not have; f32 and bf16 reach so far that it is the end.
std::optional<Divergence> judge(RunState&, const StepReport&, RunWatch::Explanation overflow, const Circumstances&);

/// After an evaluation whose loss is not finite. A warning under OnDivergence::warn, since training may go on where its own
/// losses are finite, and where those are not either, but judge() still counts them.
std::optional<Divergence> judge_validation(const RunState&, const Circumstances&);

/// The last step after which the weights are known to have been good, nothing having been skipped since.
inline std::int64_t last_good(const RunState& s) { return std::max<std::int64_t>(0, std::min(s.trend.good(), s.step - s.skips_in_a_row)); }

}  // namespace mezzo::train
