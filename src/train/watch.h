// watch.h - what looks on while a run trains: inspections each N steps, what the scaler does, and where an overflow began.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "train/events.h"
#include "train/machinery.h"
#include "train/numerics.h"

namespace mezzo::train {

class RunWatch {
 public:
  using Loss = std::function<Tensor(int micro)>;
  /// Goes on behind `done` steps; -1: a run that begins. Options and plan are those in force, and outlive it.
  RunWatch(const TrainOptions&, const PrecisionPlan&, std::int64_t done);

  /// One training step, the `number`-th of the run; inspected when it is its turn. Watching changes no bit of it.
  StepReport step(std::int64_t number, const Machinery&, const Loss&);
  struct Explanation {
    std::string text;                            ///< half a sentence: "it began in ..."
    std::string curing_op = {};                  ///< that in f32 would have made the step finite; empty: none
    std::shared_ptr<const io::Json> place = {};  ///< where, for a program; null: not found
  };
  /// After a step that was not applied: runs it again, `counter` being the default generator's before it, to find where the Inf or NaN began, and
  /// whether that op would have been finite in f32. Writes the event.
  Explanation explain(std::int64_t number, const Machinery&, const Loss&, std::uint64_t counter, const StepReport&);
  /// Waits until all that was written is on the disk.
  void sync();
  /// Something that others decided.
  void note(const Event& e) { events_.write(e); }
  /// On stderr and as an event, each time.
  void warn(std::int64_t number, const std::string& text);

 private:
  void look_at(std::int64_t number, const Machinery&, double scale_before, const StepReport&);
  void warn_once(std::int64_t number, const std::string& about, const std::string& text);

  const TrainOptions& options_;
  const PrecisionPlan& plan_;
  EventLog events_;
  std::optional<NumericsLog> numerics_;
  std::set<std::string> warned_;
  int steps_with_zeros_ = 0;
};

}  // namespace mezzo::train
