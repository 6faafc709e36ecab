// calls.h - the calls by which a program makes files durable, recorded and judged; and a time of day that can be set back.
// calls.cpp stands in front of the C library's mkdir, rename, renameat2, fsync, fdatasync and clock_gettime in the program it is linked into.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mezzo::test {

/// While it lives, calls on paths below `root` are recorded. What would be wrong after a power cut at some moment is kept as a sentence:
/// - a rename of a file whose contents, or of a directory whose entries, were not synced as they are now: the new name would show something torn;
/// - a rename while an earlier one, or a new directory, is not durable yet: the two may reach the disk in the other order;
/// - at the end, a rename or a new directory whose parent was not synced since.
/// Names that begin with ".tmp-" and ".removed-" are nobody's yet, or no longer: of those nothing is promised.
class CallRecorder {
 public:
  explicit CallRecorder(const std::filesystem::path& root);
  ~CallRecorder();
  CallRecorder(const CallRecorder&) = delete;
  CallRecorder& operator=(const CallRecorder&) = delete;
  /// "fsync a/b", "rename a/b -> a/c", "mkdir a": paths relative to the root, digits of a temporary's name left out.
  const std::vector<std::string>& calls() const;
  /// What is wrong; asked at the end.
  std::vector<std::string> wrong() const;
};

/// The time of day goes this many seconds back with each look at it, while it lives. Other clocks go on as they do.
class BackwardClock {
 public:
  explicit BackwardClock(double seconds);
  ~BackwardClock();
  BackwardClock(const BackwardClock&) = delete;
  BackwardClock& operator=(const BackwardClock&) = delete;
  int looks() const;
};

}  // namespace mezzo::test
