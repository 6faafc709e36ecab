// training.h - a run that `train` or `finetune` has built: introduced, run with progress, reported.
#pragma once

#include <string_view>

#include "cli/console.h"
#include "train/trainer.h"

namespace mezzo::cli {

/// The exit code. `command` is how the run was begun, "mezzo train"; `promise`, a string literal, what Ctrl-C is answered with.
int run_training(train::Trainer&, std::string_view command, const char* promise, Console&);

}  // namespace mezzo::cli
