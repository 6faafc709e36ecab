// step_lines.h - a file of JSON lines, one or more a step, that a resumed run goes on with.
#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

#include "io/file.h"
#include "io/json.h"

namespace mezzo::train {

class StepLines {
 public:
  /// Continues behind `done` steps: lines of later ones, and a torn last one, go; all with done < 0.
  StepLines(std::filesystem::path file, std::int64_t done);
  /// A line, newline included, on its way to the disk when this returns: a process that is killed afterwards has not lost it. Error: disk full; the
  /// lines before stay.
  void append(std::string_view line);
  /// Waits until they are all on the disk.
  void sync() { lines_.sync(); }
  /// Lines that were there and stay.
  std::int64_t kept() const { return kept_.lines; }

 private:
  struct Kept {
    std::uint64_t bytes = 0;
    std::int64_t lines = 0;
  };
  static Kept find_kept(const std::filesystem::path&, std::int64_t done);
  Kept kept_;
  io::AppendFile lines_;
};

/// Calls `use` with the object of each whole line of a file that is one and has a step; others are passed over: a run that was killed may leave half
/// of one. A file that is not there has no lines.
void for_each_step_line(const std::filesystem::path&, const std::function<void(const io::Json&)>& use);

}  // namespace mezzo::train
