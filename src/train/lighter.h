// lighter.h - what to change about a run that does not fit into memory: each change planned, not guessed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/trainer.h"

namespace mezzo::train {

/// A change of options that takes less memory.
struct Lighter {
  std::string options;    ///< as the command line spells them: "--batch 2 --accumulate 4"
  std::string effect;     ///< what that does to the training, in a few words
  bool same = false;      ///< nothing: the same sums, at most in another order
  TrainOptions run = {};  ///< the run with it
  std::int64_t peak = 0;  ///< bytes, planned
  bool fits = false;
};

/// What helps a run of this plan into `memory` bytes, the best first: what fits before what does not, what leaves the training as it
/// is before what does not, less memory before more. When no single change suffices, several together come first, if they do. Of a run that is
/// resumed only what may change about it.
std::vector<Lighter> lighter(const TrainOptions&, const models::ModelOptions&, const MemoryPlan&, std::int64_t memory);

/// Bytes that a run may take: options.memory, or what the machine has.
std::int64_t memory_of(const TrainOptions&);
/// Why a run with this plan cannot be; empty: it can.
std::string too_large(const MemoryPlan&, const TrainOptions&);
/// Error with what takes most, and what to change, unless it can, or --overcommit says to try. Then the warning; empty: it fits.
std::string refuse_too_large(const MemoryPlan&, const TrainOptions&, const models::ModelOptions&);

}  // namespace mezzo::train
