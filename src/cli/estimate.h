// estimate.h - how long a training step will take, from its shapes and a second of measuring: nothing of the model is allocated.
#pragma once

#include <mezzo/models.h>

#include "train/trainer.h"

namespace mezzo::cli {

/// Milliseconds of a step: the model's own matrix products, timed one by one, thrice (forward, input and weight gradient); attention and
/// element-wise passes and the optimizer's pass from their counts and the rates measured here.
double estimate_step_ms(const models::GptOptions&, const train::TrainOptions&, const train::PrecisionPlan&);

}  // namespace mezzo::cli
