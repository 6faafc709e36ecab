// progress.h - one line that tells how far long work is: redrawn on a terminal, written anew every few seconds elsewhere. On stderr.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "train/trainer.h"

namespace mezzo::cli {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Whether update() would show anything now: making the text can be saved.
  bool due() const;
  void update(std::string_view text);
  /// A line that stays.
  void keep(std::string_view text);
  /// Removes the moving line.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_, drawn_ = false;
  Clock::duration interval_;
  Clock::time_point last_;
};

/// "step 120/1000  loss 2.314  12,345 tokens/s  scale 65536  ETA 1 min 20 s"
std::string describe(const train::Progress&);
/// "eval 120/2000  ..." of `done` in `all` since `begin`.
std::string describe_share(std::string_view what, std::int64_t done, std::int64_t all, std::chrono::steady_clock::time_point begin);

}  // namespace mezzo::cli
