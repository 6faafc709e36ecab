// options.h - a run's options: checked, resolved, as JSON, and compared with those of the run that is resumed.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/trainer.h"

namespace mezzo::train {

/// Error, named as the command line names it, for a value outside its range.
void check(const TrainOptions&);
/// The model that options.model means for a tokenizer of `vocab` tokens. Error: a spec that is wrong, a context shorter than the sequence.
models::ModelOptions resolve_model(const TrainOptions&, std::int64_t vocab);
/// The model of a run: by its spec with the run's vocabulary, or the one that is fine-tuned. Errors of resolve_model() and base_shape().
models::ModelOptions shape_of(const TrainOptions&);
/// --seq of fine-tuning where it was left open.
void choose_seq(TrainOptions&, const models::ModelOptions&);
/// Its precision. Error for a --precision or --loss-scale that is none.
PrecisionPlan precision_of(const TrainOptions&, const models::ModelOptions&);
/// mezzo()'s policy with --f32-ops in f32; unset where there are none. Error for an op that is none, or has no class to choose.
std::optional<amp::Policy> policy_of(const TrainOptions&);
/// Checked, with everything decided that the model decides: its whole spec, the optimizer's settings, absolute paths.
TrainOptions resolved(TrainOptions, const models::ModelOptions&);
/// Steps, where passes over the data were asked for, and with them the warm-up.
void resolve_steps(TrainOptions&, const Workload&);

/// Tokens of a step, and what its loss is divided by besides their number.
inline std::int64_t tokens_of_step(const TrainOptions& o) { return o.batch * o.seq * o.accumulate; }
double loss_divisor(const TrainOptions&);

io::Json to_json(const TrainOptions&);
/// Error names a missing or mistyped entry; `source` is the file it stands in.
TrainOptions options_from_json(const io::Json&, std::string_view source);
io::Json to_json(const PrecisionPlan&);
io::Json to_json(const amp::GradScalerOptions&);
/// Bytes by category: {"weights": n, ...}, in the order of the enum.
io::Json bytes_json(const std::array<std::int64_t, kMemoryCategories>&);

/// What two runs that go on from each other must not differ in: "--lr: 0.001 in the run, 0.002 given" and so on; empty: nothing.
/// `done`: steps the run has done. Steps may grow under a constant schedule, which is the only one that does not depend on them.
std::vector<std::string> differences(const TrainOptions& run, const TrainOptions& given, std::int64_t done);

}  // namespace mezzo::train
