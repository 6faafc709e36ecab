// machinery.h - what a run trains with: built by the trainer, and under a dry run by the plan.
#pragma once

#include <memory>

#include "train/options.h"

namespace mezzo::train {

struct Machinery {
  std::shared_ptr<models::LanguageModel> model;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<Step> step;
  StateDict weights;  // what a checkpoint holds: all, or what is trained where the rest is a file's
};

/// A new model, or the one that is fine-tuned, its optimizer and step, from the default generator as it stands.
Machinery build(const models::ModelOptions&, const TrainOptions&, const PrecisionPlan&);

/// Whether all that a checkpoint would hold is finite.
bool is_finite(const Machinery&);
/// What to look at first after a step that was not applied: a parameter that is not finite, or the step's culprit.
std::string first_bad_tensor(const models::LanguageModel&, const amp::StepResult&);

}  // namespace mezzo::train
