// history.h - what was done about a run's divergences: written down in config.json, and what the run goes on with because of it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "train/trainer.h"

namespace mezzo::train {

/// An entry of --fallbacks: "op" (the op in which an Inf or NaN began goes to f32, where that alone would have cured it), "lr" or "lr=X" (the
/// learning rate times a half, or X), "bf16" (fp16 and fp16-master become bf16 and bf16-master, fp16-pure becomes bf16), "fp32".
struct Fallback {
  enum class Kind : std::uint8_t { op, lr, bf16, fp32 } kind = Kind::lr;
  double factor = 1;  ///< of lr
};
Fallback fallback_from_text(const std::string&);  ///< Error that says what is wanted

/// One thing that was done.
struct Action {
  std::int64_t step = 0;       ///< that diverged
  std::string reason = {};     ///< why it is said to have
  std::int64_t from = 0;       ///< the checkpoint that the run went back to; 0: its beginning
  std::int64_t position = 0;   ///< where it went on in the data (Workload::position()) ...
  std::uint64_t counter = 0;   ///< ... and in the random numbers: those of the steps that are gone are not used again
  std::string fallback = {};   ///< the entry of --fallbacks that was applied; empty: none, the run went back and that is all
  double lr_factor = 1;        ///< what it changed: the learning rate times this,
  std::string op = {};         ///< this op in f32,
  std::string precision = {};  ///< this recipe
};
/// What it changed: "with the learning rate times 0.5", "with softmax in f32", "in bf16-master"; empty: nothing.
std::string describe_change(const Action&);

using History = std::vector<Action>;
io::Json to_json(const History&);
/// Of a config (of a run, or of a checkpoint: then as it was when that was written). Error names a missing or mistyped entry; `source` is its file.
History history_of(const io::Json& config, const std::string& source);
/// What a run that goes on from `step` has behind it: all up to the last action that went back to that step or to one before. Later ones happened
/// to steps that will be made again.
History up_to(History, std::int64_t step);
/// A run's options as they are in force after its history.
TrainOptions in_force(TrainOptions, const History&);

/// A model that is fine-tuned was trained in a format that others chose. Where its numbers do not fit f16 it is moved out of it without being asked:
/// under OnDivergence::warn these fallbacks are taken.
inline const std::vector<std::string> kOutOfF16{"op", "bf16"};
inline bool may_leave_f16(const TrainOptions& o) { return o.tune && o.on_divergence == OnDivergence::warn; }

/// What is known of a divergence.
struct Cause {
  Recipe now;                  ///< that the run diverged in
  std::string curing_op = {};  ///< op that in f32 would have cured the step; empty: none
  bool range = false;          ///< f16's range gave out: the learning rate is tried last then
};
/// What the next fallback is: the first of --fallbacks that was not used yet and applies. `action` has its settings only; where there is none,
/// `passed_over` says why of each. `refused` says why a run with such options cannot be; empty: it can.
struct NextFallback {
  std::optional<Action> action;
  std::string passed_over;
};
NextFallback next_fallback(const TrainOptions& asked, const History&, const Cause&, const std::function<std::string(const TrainOptions&)>& refused);

}  // namespace mezzo::train
