// same_run.h - whether a run that is resumed is the one that was stopped.
#pragma once

#include <string>
#include <vector>

#include "train/history.h"

namespace mezzo::train {

/// A run that goes on, as it is now: its options as asked for, what was done about its divergences, its model and what config.json will hold.
struct PresentRun {
  const TrainOptions& options;
  const History& history;
  const models::ModelOptions& shape;
  const io::Json& config;
};
/// Error that names everything in which it differs from `before`, the config of `done` steps ago that `source` holds. Warnings: what may differ, but
/// not in silence.
std::vector<std::string> require_same(const io::Json& before, const std::string& source, std::int64_t done, const PresentRun& now);

}  // namespace mezzo::train
