// numerics.h - the inspections of a run: numerics.jsonl and TensorBoard histograms, and both read back.
#pragma once

#include <optional>
#include <vector>

#include <mezzo/inspect.h>

#include "io/tensorboard.h"
#include "train/step_lines.h"

namespace mezzo::train {

/// What a step's tensors held.
struct Inspection {
  std::int64_t step = 0;
  double scale = 1;  ///< of the loss, and so of all gradients that were seen
  std::vector<inspect::Record> records;
};

io::Json to_json(const inspect::Ranges&);
io::Json to_json(const inspect::Record&);
io::Json to_json(const Inspection&);
/// Error naming what is missing or mistyped.
Inspection inspection_from_json(const io::Json&, std::string_view source);

class NumericsLog {
 public:
  NumericsLog(const std::filesystem::path& run, std::int64_t done, bool tensorboard);
  /// A line of numerics.jsonl; and for weights, gradients and activations a histogram of log2 |x|.
  void write(const Inspection&);
  void sync() { lines_.sync(); }

 private:
  StepLines lines_;
  std::optional<io::EventWriter> events_;
};

/// All inspections of a run, by step; none where it was not inspected.
std::vector<Inspection> read_inspections(const std::filesystem::path& run);

}  // namespace mezzo::train
