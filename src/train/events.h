// events.h - what happened in a run besides its steps: events.jsonl.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "train/step_lines.h"

namespace mezzo::train {

struct Event {
  std::int64_t step = 0;                         ///< after which, or in which, it happened; of a run that went back, the step it went back to
  std::string kind;                              ///< "skipped", "overflow", "scale", "warning", "divergence", "fallback"
  std::string text;                              ///< one line for a person
  std::shared_ptr<const io::Json> details = {};  ///< what a program wants to know; null: nothing more
};
io::Json to_json(const Event&);

class EventLog {
 public:
  /// Continues behind `done` steps, as StepLines; -1: a run that begins.
  EventLog(const std::filesystem::path& run, std::int64_t done);
  void write(const Event&);
  void sync() { lines_.sync(); }

 private:
  StepLines lines_;
};

/// All events of a run, in order.
std::vector<Event> read_events(const std::filesystem::path& run);

}  // namespace mezzo::train
