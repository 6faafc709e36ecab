// example_eval.h - loss over conversations and texts of a JSONL file.
#pragma once

#include <cstdint>
#include <functional>

#include "text/example_batches.h"
#include "train/trainer.h"

namespace mezzo::train {

struct ExampleEvalOptions {
  text::ExampleBatchesOptions layout = {};  ///< shuffled or not, each example counts once
  std::int64_t max_tokens = 0;              ///< about so many that carry loss; 0: all
  Recipe recipe = {};                       ///< its autocast
};
/// Mean loss of the tokens that carry loss, and how many they are. No gradients, no dropout; the model's mode is put back. `on_batch` (may be empty)
/// sees batches done and their number; false stops, and the result counts what was done.
EvalResult evaluate(models::LanguageModel&, const text::ExampleSet&, const ExampleEvalOptions&,
                    const std::function<bool(std::int64_t, std::int64_t)>& on_batch = {});

}  // namespace mezzo::train
