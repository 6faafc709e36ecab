// train_options.h - the command line of a training run, which `train` and `plan` share.
#pragma once

#include "cli/options.h"
#include "train/trainer.h"

namespace mezzo::cli {

/// The options of a run as they were given.
struct TrainingArguments {
  train::TrainOptions options;
  bool no_tensorboard = false;
};
void declare_training(Options&, TrainingArguments&);

/// After parsing: with --resume the run's own options, under what was given.
void complete(Options&, TrainingArguments&);

/// Planned bytes by category, as a table.
std::string describe(const train::MemoryPlan&);

}  // namespace mezzo::cli
