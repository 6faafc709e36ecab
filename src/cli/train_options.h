// train_options.h - the command line of a training run, which `train`, `finetune` and `plan` share.
#pragma once

#include "cli/options.h"
#include "train/trainer.h"

namespace mezzo::cli {

/// The options of a run as they were given.
struct TrainingArguments {
  train::TrainOptions options;
  train::TuneOptions tune;  // of `finetune`; complete() puts it into the options
  bool no_tensorboard = false, no_packing = false;
  std::string inspect = {};  // "every=N"
};
void declare_training(Options&, TrainingArguments&);
void declare_tuning(Options&, TrainingArguments&);
/// Both; whether --model is a file or directory that is fine-tuned decides which holds.
void declare_either(Options&, TrainingArguments&);

/// After parsing: with --resume the run's own options, under what was given; defaults that hang on other options. UsageError for options that do not
/// go together, or are not for this kind of run.
enum class RunKind : std::uint8_t { training, tuning, either };
void complete(Options&, TrainingArguments&, RunKind);

/// Planned bytes by category, as a table.
std::string describe(const train::MemoryPlan&);

}  // namespace mezzo::cli
