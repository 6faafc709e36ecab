// trainer.cpp - the loop of a run, and what happens before and after it.
#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "core/log.h"
#include "kernels/kernels.h"
#include "models/export.h"
#include "tensor/impl.h"
#include "train/checkpoint.h"
#include "train/history.h"
#include "train/judge.h"
#include "train/lighter.h"
#include "train/machinery.h"
#include "train/metrics.h"
#include "train/options.h"
#include "train/result.h"
#include "train/run_directory.h"
#include "train/rules.h"
#include "train/run_model.h"
#include "train/same_run.h"
#include "train/vocabulary.h"
#include "train/watch.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kOp = "train";

double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  if (v.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(v.begin(), middle)) / 2;
}

}  // namespace

struct Trainer::Impl {
  TrainOptions options;  // as they were asked for
  History history;
  TrainOptions now;  // options, and what history made of them
  models::ModelOptions shape;
  PrecisionPlan plan;
  MemoryPlan memory;
  std::vector<std::string> warnings;
  RunData input;
  std::string base;  // the fingerprint of the model that is fine-tuned
  std::optional<io::DirectoryLock> lock;
  Machinery machine;
  std::optional<RunWatch> watch;
  std::optional<MetricsLog> metrics;
  RunState state;
  std::int64_t first_step = 0, tokens_here = 0, newest_checkpoint = -1;
  std::vector<double> step_times;
  std::int64_t peak = 0;
  std::array<std::int64_t, kMemoryCategories> peak_bytes{};
  std::optional<TrainSummary> ended;
  bool ran = false;

  explicit Impl(TrainOptions o) {
    if (o.threads > 0) set_num_threads(o.threads);
    if (o.resume_step) o.resume = true;
    if (o.tune && o.tune->started == 0 && o.resume && present(o.out / "config.json"))
      if (const auto run = run_options(o.out); run.tune) o.tune->started = run.tune->started;
    check(o);
    shape = shape_of(o);
    options = resolved(std::move(o), shape);
    options.threads = num_threads();
    const std::int64_t from = options.resume && present(options.out / "config.json") ? resumed_step() : 0;
    decide();
    warnings = plan.warnings;
    if (auto doubt = doubt_of_optimizer(options); !doubt.empty()) warnings.push_back(std::move(doubt));
    if (auto warning = refuse_too_large(memory, now, shape); !warning.empty()) warnings.push_back(std::move(warning));
    input = read_data(options, shape);
    if (options.tune) base = fmt::format("{:016x}", base_fingerprint(options.model));
    resolve_steps(options, *input.work);
    now = in_force(options, history);
    lock = open_run_directory(options);
    if (options.resume) resume(from);
    else make_machine();
  }

  /// The settings in force, and what follows from them.
  void decide() {
    now = in_force(options, history);
    plan = precision_of(now, shape);
    memory = plan_bytes(shape, now, plan);
  }

  void make_machine() {
    machine = {};
    manual_seed(options.seed);
    machine = build(shape, now, plan);
    release_cached_memory();  // what weights were before they took the recipe's form
  }

  // ---- before the loop -----------------------------------------------------------------------------

  io::Json config() const {
    return {{"mezzo", version()},
            {"options", to_json(options)},
            {"model",
             {{"family", models::family(shape)},
              {"spec", models::to_spec(shape)},
              {"vocab", models::vocab(shape)},
              {"context", models::context(shape)},
              {"parameters", models::parameter_count(shape)},
              {"trained", trained_parameters()},
              {"base", base.empty() ? io::Json(nullptr) : io::Json{{"path", options.model}, {"fingerprint", base}}}}},
            {"tokenizer", input.tokenizer->kind()},
            {"data", input.work->describe()},
            {"precision", to_json(plan)},
            {"tokens_per_step", tokens_of_step(options)},
            {"loss_divisor", train::loss_divisor(options)},
            {"planned_bytes", memory.peak},
            {"planned_bytes_by_category", bytes_json(memory.bytes)},
            {"history", to_json(history)}};
  }

  std::int64_t trained_parameters() const {
    std::int64_t n = 0;
    for (const auto& [path, w] : models::trainable_parameters(*machine.model)) n += w.numel();
    return n;
  }

  /// The step that is gone on from; with it, what was done about divergences by then.
  std::int64_t resumed_step() {
    const fs::path file = options.out / "config.json";
    const auto steps = checkpoint_steps(options.out);
    if (options.resume_step && std::find(steps.begin(), steps.end(), *options.resume_step) == steps.end())
      fail("resume", fmt::format("--resume-step {} given; {} has {}", *options.resume_step, options.out.native(),
                                 steps.empty() ? "no checkpoint" : fmt::format("checkpoints of the steps {}", fmt::join(steps, ", "))));
    const std::int64_t from = options.resume_step.value_or(steps.empty() ? 0 : steps.back());
    history = up_to(history_of(io::read_json(file), file.native()), from);
    return from;
  }

  void resume(std::int64_t from) {
    const fs::path file = options.out / "config.json", checkpoint = checkpoint_path(options.out, from);
    if (from > 0) verify_checkpoint(checkpoint);
    const io::Json config = from > 0 ? checkpoint_config(checkpoint) : io::read_json(file);  // 0: stopped before its first, it begins again, the same
    make_machine();
    const io::Json mine = this->config();
    const auto unlike = require_same(config, from > 0 ? checkpoint.native() : file.native(), from,
                                     {.options = options, .history = history, .shape = shape, .config = mine});
    warnings.insert(warnings.end(), unlike.begin(), unlike.end());
    restore(from);
    first_step = state.step;
    if (from > 0) newest_checkpoint = from;
    else warnings.push_back(fmt::format("{} has no checkpoint to go on from: the run starts from the beginning", options.out.native()));
    if (is_behind_last_step() && present(options.out / "model")) ended = read_result(options.out);
    if (ended && ended->step != state.step) ended.reset();
  }

  /// Weights, moments, scaler, random numbers and data as they were after step `from`, of which 0 is a new machine's; where something was done about
  /// a divergence since, the last two as they are after it.
  void restore(std::int64_t from) {
    std::size_t behind = 0;
    state = {};
    if (from > 0) {
      const fs::path checkpoint = checkpoint_path(options.out, from);
      const io::Json config = checkpoint_config(checkpoint);
      behind = history_of(config, checkpoint.native()).size();
      state = read_checkpoint(checkpoint, machine.weights, *machine.optimizer, config["precision"]["recipe"] != plan.recipe.name);
      release_cached_memory();  // what reading took
      manual_seed(state.seed);
      default_generator().seek(state.counter);
      if (state.scaler) machine.step->scaler().load_state(*state.scaler);
    }
    if (history.size() > behind) {
      state.position = history.back().position;
      default_generator().seek(history.back().counter);
    }
    input.work->seek(state.position);
  }

  // ---- the loop ------------------------------------------------------------------------------------

  optim::ScheduleOptions schedule() const {
    return {.kind = options.schedule, .lr = now.lr, .steps = options.steps, .warmup = *options.warmup, .final_fraction = options.final_fraction};
  }

  TrainSummary run(const std::function<void(const Progress&)>& on_progress, const std::function<bool()>& stop) {
    if (std::exchange(ran, true)) fail(kOp, "run() was called a second time", "build another Trainer with .resume = true");
    if (ended) return *ended;
    remove_result(options.out);
    if (state.step > 0 || options.resume_step) remove_after(options.out, state.step);
    if (!options.tune && !options.resume) save_tokenizer(*input.tokenizer, options.out, options.seq);
    io::write_json(options.out / "config.json", config());
    open_logs();
    if (metrics->missing() > 0)
      log(LogLevel::warning, fmt::format("{}: {} of the {} steps before this one are missing", (options.out / "metrics.jsonl").native(),
                                         metrics->missing(), state.step));
    machine.model->train();

    TrainSummary summary;
    bool stopped = false;
    const auto begin = Clock::now();
    while (!is_behind_last_step() && !stopped) {
      std::optional<Divergence> divergence;
      Progress p = one_step(divergence);
      if (divergence) {
        recover(*divergence);
        continue;
      }
      if (state.step == options.steps || (options.eval_steps > 0 && state.step % options.eval_steps == 0)) {
        evaluate_after(p);
        if (p.val_loss && !std::isfinite(*p.val_loss)) divergence = judge_validation(state, circumstances());
        if (divergence) {
          recover(*divergence);
          continue;
        }
      }
      const bool last = is_behind_last_step();
      stopped = !last && stop && stop();
      lock->require_held();
      metrics->write(p);
      if (last || stopped || (p.best && keeps_best()) || (options.checkpoint_steps > 0 && state.step % options.checkpoint_steps == 0)) {
        checkpoint();
        p.checkpoint = true;
      }
      p.eta_seconds = std::chrono::duration<double>(Clock::now() - begin).count() / static_cast<double>(step_times.size()) *
                      static_cast<double>(options.steps - state.step);
      summary.train_loss = p.loss;
      summary.val_loss = last ? p.val_loss : std::nullopt;
      if (on_progress) on_progress(p);
    }
    summary.status = stopped ? RunStatus::interrupted : RunStatus::finished;
    if (!stopped) {
      if (const bool others = take_best(); others || step_times.empty())
        summary.val_loss = validate(0);  // resumed behind the last step, or other weights
      finish();
    }
    fill(summary);
    if (!stopped) write_result(options.out, summary);
    return summary;
  }

  Circumstances circumstances() { return {.options = options, .plan = plan, .model = *machine.model, .watch = *watch}; }

  /// Logs that go on behind the present step.
  void open_logs() {
    metrics.reset();
    watch.reset();
    metrics.emplace(options.out, state.step, options.tensorboard && !is_behind_last_step());
    watch.emplace(now, plan, state.step > 0 || !history.empty() ? state.step : -1);
  }

  Progress one_step(std::optional<Divergence>& divergence) {
    reset_peak_memory();
    const auto begin = Clock::now();
    const double lr = optim::schedule(schedule(), machine.optimizer->steps());
    for (auto& group : machine.optimizer->groups()) group.lr = lr;
    const std::int64_t tokens = input.work->next_step();
    const std::uint64_t counter = default_generator().counter();
    const RunWatch::Loss loss = [&](int micro) { return input.work->loss(*machine.model, micro); };
    ++state.step;
    const StepReport report = watch->step(state.step, machine, loss);
    const auto& r = report.result;
    state.position = input.work->position();
    state.tokens += tokens;
    tokens_here += tokens;
    state.zero_sum += r.zero_fraction;
    RunWatch::Explanation overflow;
    if (!r.applied) overflow = watch->explain(state.step, machine, loss, counter, report);
    divergence = judge(state, report, std::move(overflow), circumstances());

    const double ms = milliseconds(Clock::now() - begin);
    step_times.push_back(ms);
    const MemoryReport report_now = memory_report();
    if (report_now.peak > peak) {
      peak = report_now.peak;
      peak_bytes = report_now.at_peak;
    }
    return {.step = state.step,
            .steps = options.steps,
            .loss = report.loss,
            .lr = lr,
            .grad_norm = r.grad_norm,
            .scale = r.scale,
            .applied = r.applied,
            .skipped = state.skipped,
            .zero_fraction = r.zero_fraction,
            .culprit = r.applied ? std::string() : r.culprit,
            .tokens_per_second = static_cast<double>(tokens) * 1000 / ms,
            .step_ms = ms,
            .peak_bytes = report_now.peak};
  }

  /// The newest checkpoints that going back may need, sudden and slow; 0: none.
  std::vector<std::int64_t> needed_to_go_back() const {
    const auto& asked = options.on_divergence;
    if (asked != OnDivergence::rollback && asked != OnDivergence::fallback && !(may_leave_f16(options) && plan.recipe.low == Dtype::f16)) return {};
    const auto steps = checkpoint_steps(options.out);
    std::vector<std::int64_t> needed;
    for (const std::int64_t good : {last_good(state), state.trend.good_slowly()})
      if (const auto after = std::upper_bound(steps.begin(), steps.end(), good); after != steps.begin()) needed.push_back(*(after - 1));
    return needed;
  }

  // ---- when it diverges ------------------------------------------------------------------------------

  /// Back to before, with other data and perhaps other settings. Error where that was not asked for, or nothing is left to be tried.
  void recover(const Divergence& d) {
    const std::int64_t diverged = state.step;
    const bool leaves_f16 = d.range && may_leave_f16(options);
    const bool falls_back = options.on_divergence == OnDivergence::fallback || leaves_f16;
    io::Json details{{"diverged", diverged}, {"losses", d.losses}};
    if (d.overflow.place) details["overflow"] = *d.overflow.place;
    const auto give_up = [&](const std::string& why) {
      watch->note({.step = diverged,
                   .kind = "divergence",
                   .text = fmt::format("diverged: {}{}", d.reason, why),
                   .details = std::make_shared<io::Json>(details)});
      fail(kOp, fmt::format("step {}: {}{}", diverged, d.reason, why), d.hint);
    };
    if (!falls_back && options.on_divergence != OnDivergence::rollback) give_up("");
    Action action;
    if (falls_back) {
      const auto refused = [&](const TrainOptions& o) { return too_large(plan_bytes(shape, o, precision_of(o, shape)), o); };
      TrainOptions asked = options;
      if (leaves_f16) asked.fallbacks = kOutOfF16;
      NextFallback next = next_fallback(asked, history, {.now = plan.recipe, .curing_op = d.overflow.curing_op, .range = d.range}, refused);
      if (!next.action) give_up(fmt::format("; no fallback is left: {}", next.passed_over));
      action = *std::move(next.action);
    } else if (const auto back = std::count_if(history.begin(), history.end(), [](const Action& a) { return a.fallback.empty(); });
               back >= options.max_rollbacks) {
      give_up(fmt::format("; {} rollbacks did not help (--max-rollbacks)", back));
    }
    action.step = diverged;
    action.reason = d.reason;
    action.position = state.position;
    action.counter = default_generator().counter();
    history.push_back(action);
    if (!action.op.empty() || !action.precision.empty()) {
      decide();
      make_machine();
    } else {
      now = in_force(options, history);
    }
    history.back().from = go_back(d.good);

    // Whoever is killed in between goes on from the checkpoint and comes to the same end, or finds in config.json what was done.
    remove_after(options.out, state.step);
    io::write_json(options.out / "config.json", config());
    newest_checkpoint = state.step > 0 ? state.step : -1;
    open_logs();
    const std::string change = describe_change(action);
    const std::string text =
        fmt::format("diverged at step {}: {}. Back to {} and past the data since{}{}", diverged, d.reason,
                    state.step > 0 ? fmt::format("step {}", state.step) : std::string("the beginning"), change.empty() ? "" : ", ", change);
    log(LogLevel::warning, text);
    watch->note({.step = state.step, .kind = falls_back ? "fallback" : "divergence", .text = text, .details = std::make_shared<io::Json>(details)});
  }

  /// To the newest checkpoint of a step up to `good` that is whole and finite, or to the beginning. The step.
  std::int64_t go_back(std::int64_t good) {
    auto steps = checkpoint_steps(options.out);
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      if (*step > good || *step == 0 || !is_whole(checkpoint_path(options.out, *step))) continue;
      restore(*step);
      if (is_finite(machine)) return *step;
    }
    make_machine();
    restore(0);
    return 0;
  }

  std::optional<double> validate(std::int64_t max_tokens) {
    const amp::Autocast region(plan.recipe.low, {.enabled = plan.recipe.autocast, .policy = policy_of(now)});
    return input.work->validate(*machine.model, plan.recipe, max_tokens);
  }

  // ---- the best weights ------------------------------------------------------------------------------

  bool keeps_best() const { return options.tune || options.early_stop > 0; }
  bool worn_out() const { return options.early_stop > 0 && state.evaluations_since_best >= options.early_stop; }
  bool is_behind_last_step() const { return state.step >= options.steps || worn_out(); }

  /// The loss on what is held out after this step, and whether it is the lowest of those over as many tokens.
  void evaluate_after(Progress& p) {
    const bool last = state.step == options.steps;
    p.val_loss = validate(last ? 0 : options.eval_tokens);
    if (!p.val_loss || (last && options.eval_tokens > 0 && state.best_step > 0)) return;
    p.best = std::isfinite(*p.val_loss) && (state.best_step == 0 || *p.val_loss < state.best_loss);
    ++state.evaluations_since_best;
    if (!p.best) return;
    state.best_step = state.step;
    state.best_loss = *p.val_loss;
    state.evaluations_since_best = 0;
  }

  /// With --early-stop a run leaves the best weights, which may be those of an earlier step. Whether it did.
  bool take_best() {
    if (options.early_stop == 0 || state.best_step == 0 || state.best_step == state.step) return false;
    const fs::path best = checkpoint_path(options.out, state.best_step);
    verify_checkpoint(best);
    read_weights(best, machine.weights);
    return true;
  }

  // ---- what is written -------------------------------------------------------------------------------

  void checkpoint() {
    state.seed = default_generator().seed();
    state.counter = default_generator().counter();
    const auto& scaler = machine.step->scaler();
    state.scaler = scaler.is_enabled() ? std::optional(scaler.state()) : std::nullopt;
    metrics->sync();  // what is written of the steps up to here is there whenever the checkpoint is
    watch->sync();
    write_checkpoint(options.out, state, machine.weights, *machine.optimizer, config());
    newest_checkpoint = state.step;
    auto also = needed_to_go_back();
    if (keeps_best()) also.push_back(state.best_step);
    keep_newest(options.out, options.keep, also);
  }

  void finish() {
    io::AtomicDirectory directory(options.out / "model");
    if (!options.tune) write_model(*machine.model, *input.tokenizer, directory.path());
    else if (options.tune->full)
      write_merged({machine.model, input.tokenizer, options.model, options.model, template_path(options)}, directory.path(), {});
    else write_adapter({machine.model, input.tokenizer, options.model, options.model, template_path(options)}, directory.path());
    directory.commit();
  }

  void fill(TrainSummary& s) const {
    s.step = state.step;
    s.skipped = state.skipped;
    s.rollbacks = static_cast<std::int64_t>(history.size());
    s.scale = machine.step->scaler().get_scale();
    s.zero_fraction = state.step > 0 ? state.zero_sum / static_cast<double>(state.step) : 0;
    s.tokens = state.tokens;
    s.best_step = state.best_step;
    s.best_loss = state.best_loss;
    s.steps_run = std::ssize(step_times);
    constexpr std::size_t kWarm = 3;  // steps in which buffers and caches are made
    const std::vector<double> warm(step_times.begin() + static_cast<std::ptrdiff_t>(step_times.size() > kWarm ? kWarm : 0), step_times.end());
    s.step_ms_median = median(warm);
    const double tokens_of_a_step = static_cast<double>(tokens_here) / std::max(1.0, static_cast<double>(step_times.size()));
    s.tokens_per_second = s.step_ms_median > 0 ? tokens_of_a_step * 1000 / s.step_ms_median : 0;
    s.peak_bytes = peak;
    s.bytes = peak_bytes;
    if (newest_checkpoint >= 0) s.checkpoint = checkpoint_path(options.out, newest_checkpoint);
  }
};

Trainer::Trainer(TrainOptions o) : impl_(std::make_unique<Impl>(std::move(o))) {}
Trainer::~Trainer() = default;
TrainSummary Trainer::run(const std::function<void(const Progress&)>& on_progress, const std::function<bool()>& stop) {
  return impl_->run(on_progress, stop);
}
const TrainOptions& Trainer::options() const { return impl_->options; }
const models::ModelOptions& Trainer::model_options() const { return impl_->shape; }
const PrecisionPlan& Trainer::plan() const { return impl_->plan; }
const MemoryPlan& Trainer::memory() const { return impl_->memory; }
const Workload& Trainer::workload() const { return *impl_->input.work; }
std::int64_t Trainer::trained_parameters() const { return impl_->trained_parameters(); }
std::int64_t Trainer::first_step() const { return impl_->first_step; }
const std::optional<TrainSummary>& Trainer::ended() const { return impl_->ended; }
double Trainer::loss_divisor() const { return train::loss_divisor(impl_->options); }
std::vector<std::string> Trainer::warnings() const { return impl_->warnings; }
models::LanguageModel& Trainer::model() { return *impl_->machine.model; }
io::Json Trainer::config() const { return impl_->config(); }

TrainOptions run_options(const fs::path& run) {
  const fs::path file = run / "config.json";
  if (!present(file)) fail("run", fmt::format("{}: not a run directory (it has no config.json)", run.native()));
  const io::Json config = io::read_json(file);
  const auto it = config.find("options");
  if (it == config.end()) fail("run", fmt::format("{}: not the config of a run (it has no `options`)", file.native()));
  TrainOptions o = options_from_json(*it, file.native());
  o.out = run;
  return o;
}

}  // namespace mezzo::train
