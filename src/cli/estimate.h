// estimate.h - how long a training step will take, from what a dry run of it has seen and a second of measuring.
#pragma once

#include "train/trainer.h"

namespace mezzo::cli {

/// Milliseconds of a step: its matrix products, timed here one shape after the other; attention from its operations; everything else from the
/// bytes that it moves.
double estimate_step_ms(const train::MemoryPlan&);

}  // namespace mezzo::cli
