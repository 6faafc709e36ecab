// metrics.h - what a run writes down each step: metrics.jsonl and TensorBoard scalars.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "io/tensorboard.h"
#include "train/step_lines.h"
#include "train/trainer.h"

namespace mezzo::train {

class MetricsLog {
 public:
  /// Continues behind `done` steps: lines of later ones, and a torn last one, go.
  MetricsLog(const std::filesystem::path& run, std::int64_t done, bool tensorboard);
  /// One step, as StepLines::append.
  void write(const Progress&);
  void sync() { lines_.sync(); }
  /// Lines that the file lacks of the `done` steps: someone shortened it.
  std::int64_t missing() const { return done_ - lines_.kept(); }

 private:
  StepLines lines_;
  std::optional<io::EventWriter> events_;
  std::int64_t done_;
  std::string line_;
};

/// The line of a step, newline included: a JSON object with the contract's keys, zero_fraction, and val_loss when there is one. Not finite: null.
void append_line(std::string& to, const Progress&);

}  // namespace mezzo::train
