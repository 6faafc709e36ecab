// estimate.h - how long a training step will take, from what a dry run of it has seen and a second of measuring.
#pragma once

#include "train/trainer.h"

namespace mezzo::cli {

struct StepTime {
  double products = 0, attention = 0, optimizer = 0, memory = 0;  ///< milliseconds; memory: tensors that are written and read, casts among them
  bool tried = false;                                             ///< measured by running steps
  double ms() const { return products + attention + optimizer + memory; }
};

/// Of one step. Its matrix products are timed here one shape after the other; attention follows from its operations, everything else from the bytes
/// that it moves. What an op costs as such is not in these figures, and decides where ops are small: a step of a new model that takes little time and
/// no more memory than the measuring does is run a few times instead.
StepTime estimate_step(const train::MemoryPlan&, const models::ModelOptions&, const train::TrainOptions&, const train::PrecisionPlan&);

}  // namespace mezzo::cli
