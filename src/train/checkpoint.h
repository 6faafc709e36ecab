// checkpoint.h - all that a run needs to go on bit for bit, in a directory that is complete or absent.
//
// checkpoints/step-N/: weights.safetensors (what is trained, as it is stored: f32, or 16-bit beside masters), optimizer.safetensors (masters,
// moments, counts), state.json (everything that is not a tensor), manifest.json (size and checksum of the three).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <system_error>
#include <vector>

#include <mezzo/amp.h>
#include <mezzo/nn.h>
#include <mezzo/optim.h>

#include "io/json.h"
#include "train/divergence.h"

namespace mezzo::train {

/// Where a run stands between two steps, tensors apart.
struct RunState {
  std::int64_t step = 0, skipped = 0;
  std::int64_t position = 0;            ///< in the data: Workload::position()
  std::int64_t tokens = 0;              ///< trained on
  std::uint64_t seed = 0, counter = 0;  ///< of the default generator
  double zero_sum = 0;                  ///< sum over steps of the share of zero gradient elements
  int skips_in_a_row = 0;
  std::optional<amp::GradScalerState> scaler;  ///< unset: the run does not scale
  std::int64_t best_step = 0;                  ///< after which the loss on what is held out was least; 0: it was not taken yet
  double best_loss = 0;                        ///< that loss
  int evaluations_since_best = 0;
  LossTrend trend = {};
};

/// Whether there is something of that name; where it may not be looked at: no.
inline bool present(const std::filesystem::path& p) {
  std::error_code ignored;
  return std::filesystem::exists(p, ignored);
}

/// Steps of the checkpoints below a run directory, rising.
std::vector<std::int64_t> checkpoint_steps(const std::filesystem::path& run);
std::filesystem::path checkpoint_path(const std::filesystem::path& run, std::int64_t step);

/// Writes checkpoints/step-N of these weights; `run_config` is kept beside the state. Error (disk full, ...): no trace of it.
void write_checkpoint(const std::filesystem::path& run, const RunState&, const StateDict& weights, const optim::Optimizer&,
                      const io::Json& run_config);

/// Error that says which file is missing, too short or altered, and, for a checkpoint of a run that has an older one that is whole, which.
void verify_checkpoint(const std::filesystem::path& checkpoint);
/// The config that write_checkpoint() was given.
io::Json checkpoint_config(const std::filesystem::path& checkpoint);
/// Weights alone, into those of the same names and shapes, converted to their dtypes.
void read_weights(const std::filesystem::path& checkpoint, const StateDict& weights);
/// Everything, bit for bit; verified before. `other_recipe`: it was written in one that the optimizer's may follow (carry_over()).
RunState read_checkpoint(const std::filesystem::path& checkpoint, const StateDict& weights, optim::Optimizer&, bool other_recipe = false);
/// Whether it is complete and unaltered.
bool is_whole(const std::filesystem::path& checkpoint);

/// Removes all but the newest `keep` (0: nothing) and those of the steps `also`.
void keep_newest(const std::filesystem::path& run, int keep, const std::vector<std::int64_t>& also = {});
/// Removes those of later steps.
void remove_after(const std::filesystem::path& run, std::int64_t step);
/// Removes what a process that died has left half-written or half-removed.
void clean_checkpoints(const std::filesystem::path& run);

}  // namespace mezzo::train
