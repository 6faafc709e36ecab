// trainer.h - a whole run: a language model from scratch on text, or an existing one on examples, in a run directory that can be stopped and
// resumed at any step, bit for bit.
//
// Run directory: config.json (options, model, precision plan), metrics.jsonl (one object a step), events.jsonl (overflows, the scaler's moves,
// warnings), numerics.jsonl (inspections), events.out.tfevents.* (TensorBoard), checkpoints/step-N/ (atomic, checksummed), model/ (Hugging Face
// layout, or an adapter in PEFT's) and result.json (what was measured) when the run has finished, .lock (while a process trains in it).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mezzo/models.h>
#include <mezzo/runtime.h>
#include <mezzo/train.h>

#include "core/parts.h"
#include "io/json.h"
#include "kernels/work_log.h"
#include "text/corpus.h"
#include "train/divergence.h"
#include "train/tuning.h"
#include "train/workload.h"

namespace mezzo::train {

/// Everything `mezzo train` and `mezzo finetune` can be told. Errors name the option as the command line spells it.
struct TrainOptions {
  // what is trained
  std::filesystem::path data;                            ///< text: a file, or a directory (text::Corpus says what it takes)
  std::string model = "gpt:layers=6,heads=6,width=384";  ///< a spec; vocab: the tokenizer's, context: seq, unless it says otherwise
  std::int64_t vocab = 0;                                ///< tokens of a byte-level vocabulary learnt from the text; 0: tokens are bytes
  std::filesystem::path out;                             ///< the run directory; made when it is not there
  double val_fraction = 0.1;                             ///< of every file, for validation; 0: none
  std::uint64_t seed = 0;                                ///< of the weights, the order of the data, dropout

  // how long, how much at once
  std::int64_t batch = 8, seq = 256;  ///< B windows of T tokens in a micro-batch; fine-tuning, seq 0: 1,024, or the model's context if that is less
  std::int64_t steps = 1000;          ///< optimizer steps of the whole run, skipped ones included
  std::int64_t epochs = 0;            ///< passes over the training data instead: `steps` follows from it; 0: `steps` decides
  int accumulate = 1;                 ///< micro-batches of a step; the loss is their mean
  int checkpoint_every = 0;           ///< of each so many blocks only the input is kept for backward, which runs them again; 0: all is kept
  std::int64_t global_batch = 0;      ///< tokens over which the loss is a mean, of which a step runs B T accumulate; 0: those

  // the optimizer; weight decay on matrices only
  std::string optimizer = "adamw";  ///< adamw, adam, sgd, adagrad, lion, adafactor
  std::string state_dtype = {};     ///< of its moments: f32, bf16, u8 (Adam's, in 8 bits), or empty: the recipe's
  double lr = 1e-3;
  optim::ScheduleKind schedule = optim::ScheduleKind::cosine;
  std::optional<std::int64_t> warmup = {};  ///< steps; unset: a twentieth of the run, at most 500
  double final_fraction = 0.1;              ///< linear, cosine, wsd: last lr as a share of lr
  double weight_decay = 0.1;
  std::optional<std::array<double, 2>> betas = {};  ///< of adamw, adam, lion; unset: 0.9 and 0.95, lion's 0.9 and 0.99
  double momentum = 0.9;                            ///< of sgd
  double clip_norm = 1;                             ///< 0: no clipping
  bool fuse_optimizer = false;                      ///< each gradient is used and freed as soon as backward has completed it (StepOptions)

  // precision
  std::string precision = "auto";
  std::string loss_scale = {};            ///< "dynamic", "none", a number, or empty: the recipe's
  std::vector<std::string> f32_ops = {};  ///< ops of the model that compute in f32 where autocast would choose 16 bits (docs/ops.md has their names)

  // when it diverges
  OnDivergence on_divergence = OnDivergence::warn;
  std::vector<std::string> fallbacks = {"op", "lr", "bf16", "fp32"};  ///< of OnDivergence::fallback, tried in this order (train/history.h)
  std::int64_t max_rollbacks = 5;                                     ///< of OnDivergence::rollback, in the whole run

  // what is written
  std::int64_t checkpoint_steps = 500;  ///< 0: only when the run ends or is stopped
  int keep = 3;                         ///< newest checkpoints that stay; 0: all
  std::int64_t eval_steps = 250;        ///< validation loss each that many steps; 0: only at the end (where it is always taken)
  std::int64_t eval_tokens = 0;         ///< of the validation part in the evaluations on the way; 0: all of it. At the end: all
  int early_stop = 0;                   ///< evaluations in a row without a lower loss that end the run, with the best weights; 0: none do
  bool tensorboard = true;
  std::int64_t inspect = 0;  ///< the numerics of each that many-th step go to numerics.jsonl; 0: of none

  std::optional<TuneOptions> tune = {};  ///< an existing model is trained further: `mezzo finetune`

  int threads = 0;                               ///< 0: as they are
  double memory = 0;                             ///< GiB that it may take; 0: what the machine has
  bool overcommit = false;                       ///< begin also where the plan says that it does not fit
  bool resume = false;                           ///< continue the run in `out` from its newest checkpoint (from the start, if it has none yet)
  std::optional<std::int64_t> resume_step = {};  ///< ... from checkpoints/step-N instead; later ones are removed (they will be made again)
};

/// What fine-tuning takes where nothing else is said: three passes, smaller learning rates, longer memory, evaluations closer together.
TrainOptions tuning_defaults(bool full);

/// The options that a run directory was made with (its config.json), to resume it without repeating them. Error where it holds no run.
TrainOptions run_options(const std::filesystem::path& run_directory);

/// One step, as it has just ended.
struct Progress {
  std::int64_t step = 0, steps = 0;        ///< 1 is the first
  double loss = 0, lr = 0, grad_norm = 0;  ///< loss: mean natural-log loss a token of the step's tokens; norm: before clipping
  double scale = 1;                        ///< that the loss was multiplied by; 1 without scaling
  bool applied = true;
  std::int64_t skipped = 0;  ///< steps so far that were not applied
  double zero_fraction = 0;  ///< share of this step's gradient elements that are exactly 0
  std::string culprit = {};  ///< of a skipped step: the first parameter whose gradient holds Inf or NaN
  double tokens_per_second = 0, step_ms = 0, eta_seconds = 0;
  std::int64_t peak_bytes = 0;          ///< largest sum of live bytes during this step
  std::optional<double> val_loss = {};  ///< when it was taken after this step
  bool best = false;                    ///< it is the lowest so far
  bool checkpoint = false;              ///< one was written after this step
};

enum class RunStatus : std::uint8_t { finished, interrupted };

struct TrainSummary {
  RunStatus status = RunStatus::finished;
  std::int64_t step = 0, skipped = 0;   ///< of the whole run, resumed parts included
  std::int64_t rollbacks = 0;           ///< how often it went back because it had diverged
  std::optional<double> val_loss = {};  ///< mean natural-log loss a token of the whole validation part; none without one, or when interrupted
  std::int64_t best_step = 0;           ///< after which that loss was lowest, and ...
  double best_loss = 0;                 ///< ... what it was; 0: it was not taken
  std::int64_t steps_run = 0;           ///< by this process; where there were none, nothing was measured: the figures of steps below are 0
  double train_loss = 0;                ///< of the last step
  double scale = 1;                     ///< at the end
  double zero_fraction = 0;             ///< share of gradient elements that were exactly 0, all steps together
  double step_ms_median = 0, tokens_per_second = 0;     ///< of the steps this process ran from the fourth on (of all, if there are fewer)
  std::int64_t tokens = 0;                              ///< trained on, of the whole run
  std::int64_t peak_bytes = 0;                          ///< largest of the steps this process ran
  std::array<std::int64_t, kMemoryCategories> bytes{};  ///< at that peak, by category
  std::filesystem::path checkpoint;                     ///< the newest
};

/// What a step will need, before anything is allocated: bytes at its peak, and the work that its time goes into.
struct MemoryPlan {
  std::array<std::int64_t, kMemoryCategories> bytes{};
  std::int64_t peak = 0;                            ///< their sum
  std::vector<kernels::WorkLog::Product> products;  ///< of one step, each shape once with its count
  double attention_flops = 0;                       ///< floating-point operations
  std::int64_t written = 0;                         ///< bytes of all tensors that the step makes
  std::int64_t trained = 0;                         ///< numbers that the optimizer updates
  std::int64_t checkpoint = 0;                      ///< bytes of one: what is trained, masters, moments
};
MemoryPlan plan_bytes(const models::ModelOptions&, const TrainOptions&, const PrecisionPlan&);
/// The same from the options alone: does not read the data (its vocabulary has the size asked for).
MemoryPlan plan_bytes(const TrainOptions&);
/// A step's milliseconds by part (core/parts.h), measured: random tokens, the median of those that fit into `seconds` after two that warm up. Takes
/// the plan's memory while it lasts, and leaves no trace.
std::array<double, kParts> try_steps(const models::ModelOptions&, const TrainOptions&, const PrecisionPlan&, double seconds);

/// Milliseconds that the run's optimizer takes to update a matrix of so many elements (a multiple of 1024), measured.
double try_update(const TrainOptions&, const PrecisionPlan&, std::int64_t elements);

/// One run. Everything that can be refused is refused by the constructor, before the directory changes.
class Trainer {
 public:
  /// Resolves options, counts memory, reads and checks the text, locks the directory, builds the model or loads the checkpoint.
  explicit Trainer(TrainOptions);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Trains to the last step, or until stop() (asked after each step) is true: then a checkpoint is written and the summary says interrupted.
  /// Where the run has ended() already: returns that, and leaves the directory as it is.
  /// Once. Error: NaN or Inf where the recipe has no way to skip it, a full disk, too many skipped steps in a row; what was written before stays.
  TrainSummary run(const std::function<void(const Progress&)>& on_progress = {}, const std::function<bool()>& stop = {});

  const TrainOptions& options() const;  ///< resolved: warm-up, threads, precision still as asked
  const models::ModelOptions& model_options() const;
  const PrecisionPlan& plan() const;
  const MemoryPlan& memory() const;
  const Workload& workload() const;
  std::int64_t trained_parameters() const;  ///< numbers that the optimizer updates
  std::int64_t first_step() const;          ///< steps done before this process: 0, or where it resumed
  /// How the run in `out` ended, where nothing is left to do: its last step is done, its model is there. Otherwise none.
  const std::optional<TrainSummary>& ended() const;
  double loss_divisor() const;                ///< global_batch / (B T accumulate)
  std::vector<std::string> warnings() const;  ///< for a person: the plan's, and those of the run (another thread count than before, ...)
  models::LanguageModel& model();
  io::Json config() const;  ///< what config.json holds

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// ---- evaluation ----------------------------------------------------------------------------------

struct EvalOptions {
  std::int64_t batch = 8, seq = 256;
  std::int64_t stride = 0;                 ///< from window to window; 0: seq. With less, targets that a window before had are not counted again
  std::optional<std::int32_t> begin = {};  ///< a token before each window
  std::int64_t max_tokens = 0;             ///< 0: the whole stream
  Recipe recipe = {};                      ///< its autocast
};
struct EvalResult {
  double loss = 0;  ///< mean natural-log loss a token, summed in double over batches
  std::int64_t tokens = 0;
};
/// Windows of T inputs and their T next tokens, the incomplete tail dropped. No gradients, no dropout; the model's mode is put back.
/// Error: the stream is shorter than one window, T beyond the model's context. `on_batch` (may be empty) sees windows done and their number; false
/// stops (Error-free, the result counts what was done).
EvalResult evaluate(models::LanguageModel&, const text::TokenStream&, const EvalOptions&,
                    const std::function<bool(std::int64_t, std::int64_t)>& on_batch = {});

}  // namespace mezzo::train
