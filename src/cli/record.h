// record.h - what a run directory tells about its run: the steps, read back from metrics.jsonl, and how it ended.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/format.h"
#include "train/trainer.h"

namespace mezzo::cli {

struct StepRecord {
  std::int64_t step = 0;
  double loss = 0, scale = 1, zero_fraction = 0;  // NaN where the file has null
  double val_loss = 0;                            // NaN: not taken after this step
  bool applied = true;
  std::int64_t peak_bytes = 0;  // largest sum of live bytes during the step; 0: the file does not say
};

struct RunRecord {
  std::string name;   // "bf16"
  std::string about;  // a few words beside it: "no loss scaling"
  std::vector<StepRecord> steps;
  train::TrainSummary summary;
  std::string failure;   // what ended it, when that was an error
  io::Json config = {};  // its config.json: the precision plan, bytes as planned; null: not known
};

/// The steps of metrics.jsonl in a run directory. Lines that are not of a step are passed over: a run that was killed may leave half of one.
std::vector<StepRecord> read_steps(const std::filesystem::path& run_directory);

/// config.json of a run directory; null where there is none.
io::Json read_config(const std::filesystem::path& run_directory);

/// One column a run, one row a figure: validation loss, skipped steps, gradients that are zero, ms a step, speed against the first run (where there
/// are several), memory and its categories.
Table summary_table(const std::vector<RunRecord>&);

}  // namespace mezzo::cli
