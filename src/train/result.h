// result.h - result.json: how a run ended and what was measured on the way. The last thing that a run writes when it has finished.
#pragma once

#include <filesystem>
#include <optional>

#include "io/json.h"
#include "train/trainer.h"

namespace mezzo::train {

/// What no step measured is null.
io::Json to_json(const TrainSummary&);

void write_result(const std::filesystem::path& run, const TrainSummary&);
/// The run goes on: it has not finished any more.
void remove_result(const std::filesystem::path& run);
/// None where no run has finished. The checkpoint is the one of its last step. Error that names the file if it holds something else.
std::optional<TrainSummary> read_result(const std::filesystem::path& run);

}  // namespace mezzo::train
