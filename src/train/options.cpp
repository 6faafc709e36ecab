// options.cpp - a run's options: checked, resolved, as JSON, compared.
#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/clock.h"
#include "train/history.h"
#include "train/rules.h"
#include "train/vocabulary.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOp = "train";

/// Whether a resumed run may differ in an option: in none that decides a number of the training.
enum class OnResume : std::uint8_t { same, free, may_grow };

template <class Options, class T>
concept OptionsOf = std::same_as<std::remove_const_t<Options>, T>;

/// All options that are written down, once: f(key, member, OnResume). precision and loss_scale are compared as the plan they resolve to.
template <OptionsOf<TuneOptions> Options, class F> void each_option(Options& o, F&& f) {
  using enum OnResume;
  f("full", o.full, same);
  f("lora_rank", o.lora.rank, same);
  f("lora_alpha", o.lora.alpha, same);
  f("lora_dropout", o.lora.dropout, same);
  f("rslora", o.lora.rslora, same);
  f("lora_targets", o.lora.targets, same);
  f("dropout", o.dropout, same);
  f("quantize_base", o.quantize_base, same);
  f("eval_data", o.eval_data, free);  // the examples themselves are compared, by their fingerprint
  f("packing", o.packing, same);
  f("overlong", o.overlong, same);
  f("train_on", o.train_on, same);
  f("chat_template", o.chat_template, free);  // the examples say what it did
  f("skip_bad_lines", o.skip_bad_lines, free);
  f("started", o.started, free);
}
template <OptionsOf<TrainOptions> Options, class F> void each_option(Options& o, F&& f) {
  using enum OnResume;
  f("data", o.data, free);  // the text itself is compared, by its fingerprint
  f("model", o.model, same);
  f("vocab", o.vocab, same);
  f("val_fraction", o.val_fraction, same);
  f("seed", o.seed, same);
  f("batch", o.batch, same);
  f("seq", o.seq, same);
  f("steps", o.steps, may_grow);
  f("epochs", o.epochs, free);  // as the steps that they are
  f("accumulate", o.accumulate, same);
  f("checkpoint_every", o.checkpoint_every, free);  // the same bits
  f("global_batch", o.global_batch, same);
  f("optimizer", o.optimizer, same);
  f("state_dtype", o.state_dtype, same);
  f("lr", o.lr, same);
  f("schedule", o.schedule, same);
  f("warmup", o.warmup, same);
  f("final_fraction", o.final_fraction, same);
  f("weight_decay", o.weight_decay, same);
  f("betas", o.betas, same);
  f("momentum", o.momentum, same);
  f("clip_norm", o.clip_norm, same);
  f("fuse_optimizer", o.fuse_optimizer, free);  // the same bits
  f("precision", o.precision, free);
  f("loss_scale", o.loss_scale, free);
  f("f32_ops", o.f32_ops, same);
  f("on_divergence", o.on_divergence, free);
  f("fallbacks", o.fallbacks, free);
  f("max_rollbacks", o.max_rollbacks, free);
  f("checkpoint_steps", o.checkpoint_steps, free);
  f("keep", o.keep, free);
  f("eval_steps", o.eval_steps, free);
  f("eval_tokens", o.eval_tokens, free);
  f("early_stop", o.early_stop, free);
  f("tensorboard", o.tensorboard, free);
  f("inspect", o.inspect, free);
  f("threads", o.threads, free);
}

template <class T> io::Json value_of(const T& x) { return x; }
io::Json value_of(const fs::path& x) { return x.native(); }
io::Json value_of(const optim::ScheduleKind& x) { return name(x); }
io::Json value_of(const text::Overlong& x) { return name(x); }
io::Json value_of(const text::TrainOn& x) { return name(x); }
io::Json value_of(const OnDivergence& x) { return name(x); }
template <class T> io::Json value_of(const std::optional<T>& x) { return x ? io::Json(*x) : io::Json(nullptr); }

template <class T> void read_value(const io::Json& j, T& x) { j.get_to(x); }
void read_value(const io::Json& j, fs::path& x) { x = j.get<std::string>(); }
void read_value(const io::Json& j, optim::ScheduleKind& x) { x = optim::schedule_from_name(j.get<std::string>()); }
void read_value(const io::Json& j, text::Overlong& x) { x = overlong_from_name(j.get<std::string>()); }
void read_value(const io::Json& j, text::TrainOn& x) { x = train_on_from_name(j.get<std::string>()); }
void read_value(const io::Json& j, OnDivergence& x) { x = on_divergence_from_name(j.get<std::string>()); }
template <class T> void read_value(const io::Json& j, std::optional<T>& x) { x = j.is_null() ? std::optional<T>() : j.get<T>(); }

std::string flag(std::string_view key) {
  std::string s = fmt::format("--{}", key);
  std::replace(s.begin(), s.end(), '_', '-');
  return s;
}

template <class T> void require(bool ok, std::string_view key, const T& given, std::string_view wanted) {
  if (!ok) fail(kOp, fmt::format("{} {} given, {} wanted", flag(key), given, wanted));
}

[[noreturn]] void refuse_fusing(std::string_view given, std::string_view why, std::string_view hint = {}) {
  fail(kOp, fmt::format("--fuse-optimizer with {} given: {}", given, why), hint);
}

}  // namespace

// ---- checks and resolution -----------------------------------------------------------------------

void check(const TrainOptions& o) {
  constexpr std::int64_t kTokens = std::numeric_limits<std::int32_t>::max();  // of a step
  if (o.data.empty())
    fail(kOp, o.tune ? "no --data given, a JSONL file with examples wanted" : "no --data given, a text file or a directory of text files wanted");
  if (o.out.empty()) fail(kOp, "no --out given, a directory for the run wanted");
  const auto positive = [](std::string_view key, auto x) { require(x >= 1, key, x, "1 or more"); };
  require(o.vocab == 0 || (o.vocab >= kLeastVocab && o.vocab <= kMostVocab), "vocab", o.vocab,
          fmt::format("0 (tokens are bytes) or {} to {}", kLeastVocab, kMostVocab));
  positive("batch", o.batch);
  if (!o.tune || o.seq != 0) positive("seq", o.seq);  // 0: chosen when the model is known, and checked again
  require(o.epochs >= 0, "epochs", o.epochs, "0 (--steps decides) or more");
  if (o.epochs == 0) positive("steps", o.steps);
  positive("accumulate", o.accumulate);
  if (o.seq > 0 && (o.batch > kTokens / o.seq || o.batch * o.seq > kTokens / o.accumulate))
    fail(kOp, fmt::format("--batch {} --seq {} --accumulate {} given: more than {} tokens a step", o.batch, o.seq, o.accumulate, kTokens));
  require(o.global_batch == 0 || o.global_batch >= tokens_of_step(o), "global-batch", o.global_batch,
          fmt::format("0, or at least the {} tokens that a step runs (batch x seq x accumulate)", tokens_of_step(o)));

  const auto finite = [](double x) { return std::isfinite(x); };
  const auto share = [](double x) { return x >= 0 && x < 1; };
  require(o.lr > 0 && finite(o.lr), "lr", o.lr, "a finite number above 0");
  // A run that is resumed for fewer steps than it was planned for keeps its warm-up, which may then not end.
  const bool ends = o.epochs > 0 || o.resume;
  require(!o.warmup || (*o.warmup >= 0 && (ends || *o.warmup <= o.steps)), "warmup", o.warmup.value_or(0), fmt::format("0 to {} steps", o.steps));
  require(o.final_fraction >= 0 && o.final_fraction <= 1, "final_fraction", o.final_fraction, "a number from 0 to 1");
  require(o.weight_decay >= 0 && finite(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  if (o.betas)
    for (const double beta : *o.betas) require(share(beta), "betas", beta, "two numbers of at least 0 and below 1");
  require(share(o.momentum), "momentum", o.momentum, "a number of at least 0 and below 1");
  check_optimizer(o);
  require(o.clip_norm >= 0 && finite(o.clip_norm), "clip_norm", o.clip_norm, "0 (no clipping) or more");
  require(share(o.val_fraction), "val_fraction", o.val_fraction, "a number of at least 0 and below 1");

  const auto natural = [](std::string_view key, auto x) { require(x >= 0, key, x, "0 or more"); };
  natural("checkpoint_steps", o.checkpoint_steps);
  natural("keep", o.keep);
  natural("eval_steps", o.eval_steps);
  natural("eval_tokens", o.eval_tokens);
  natural("early_stop", o.early_stop);
  natural("inspect", o.inspect);
  natural("checkpoint_every", o.checkpoint_every);
  if (o.fuse_optimizer) {
    if (o.clip_norm > 0)
      refuse_fusing(fmt::format("--clip-norm {}", o.clip_norm), "the norm of all gradients is known when backward has ended",
                    "--clip-norm 0 turns clipping off");
    if (o.accumulate > 1)
      refuse_fusing(fmt::format("--accumulate {}", o.accumulate), "a gradient is complete after the last micro-batch",
                    "a larger --batch takes their place");
    if (o.on_divergence == OnDivergence::rollback || o.on_divergence == OnDivergence::fallback)
      refuse_fusing(fmt::format("--on-divergence {}", name(o.on_divergence)), "a step that holds NaN cannot be taken back",
                    "warn and stop go with it");
    if (o.inspect > 0) refuse_fusing("--inspect", "gradients are never all there to be looked at");
  }
  positive("max_rollbacks", o.max_rollbacks);
  if (o.fallbacks.empty()) fail(kOp, "no --fallbacks given, at least one wanted", "--on-divergence rollback changes no settings");
  for (const auto& f : o.fallbacks) fallback_from_text(f);
  policy_of(o);
  const PrecisionPlan plan = resolve({.precision = o.precision, .loss_scale = o.loss_scale});  // its scaler is the same for every model
  if (o.fuse_optimizer && plan.scaler)
    refuse_fusing(fmt::format("--precision {}, which scales the loss,", plan.recipe.name),
                  "an overflow that is found last must prevent the whole step", "bf16 needs no loss scale");
  if (o.early_stop > 0 && o.eval_steps == 0) fail(kOp, "--early-stop with --eval-steps 0 given: there is nothing to stop by");
  if (o.early_stop > 0 && o.val_fraction == 0 && !(o.tune && !o.tune->eval_data.empty()))
    fail(kOp, "--early-stop with --val-fraction 0 given: nothing is held out that could say when to stop");
  require(o.memory >= 0 && o.memory <= 1 << 20, "memory", o.memory, "GiB: 0 (what the machine has) to 1048576");
  require(o.threads >= 0 && o.threads <= 4096, "threads", o.threads, "0 (as many as there are cores) to 4096");
  if (o.tune) check(*o.tune);
}

models::ModelOptions resolve_model(const TrainOptions& o, std::int64_t vocab) {
  models::ModelOptions m = models::model_from_spec(o.model, {.vocab = vocab, .context = o.seq});
  if (models::vocab(m) < vocab) fail("model", fmt::format("vocab {} given, at least the tokenizer's {} wanted", models::vocab(m), vocab));
  if (models::context(m) < o.seq) fail("model", fmt::format("context {} given, at least the {} tokens of --seq wanted", models::context(m), o.seq));
  return m;
}

models::ModelOptions shape_of(const TrainOptions& o) { return o.tune ? base_shape(o) : resolve_model(o, vocab_of(o)); }

PrecisionPlan precision_of(const TrainOptions& o, const models::ModelOptions& m) {
  PlanOptions p{.precision = o.precision,
                .loss_scale = o.loss_scale,
                .width = static_cast<double>(models::width(m)),
                .rows = static_cast<double>(o.batch * o.seq)};
  if (o.tune && !o.tune->full) p.frozen = frozen_text(o, resolve(p).recipe);
  return resolve(p);
}

std::optional<amp::Policy> policy_of(const TrainOptions& o) {
  if (o.f32_ops.empty()) return std::nullopt;
  amp::Policy policy = amp::Policy::mezzo();
  for (const auto& op : o.f32_ops) policy.set(op, amp::Cast::f32);
  return policy;
}

void choose_seq(TrainOptions& o, const models::ModelOptions& m) {
  constexpr std::int64_t kUsual = 1024;
  if (o.tune && o.seq == 0) o.seq = std::min(kUsual, models::context(m));
}

TrainOptions resolved(TrainOptions o, const models::ModelOptions& m) {
  choose_seq(o, m);
  check(o);
  const auto absolute = [](const fs::path& p) {
    const fs::path whole = fs::absolute(p).lexically_normal();
    return whole.has_filename() ? whole : whole.parent_path();  // a trailing slash
  };
  o.betas = betas_of(o);
  o.model = o.tune ? absolute(base_path(o.model)).native() : models::to_spec(m);
  o.data = absolute(o.data);
  o.out = absolute(o.out);
  if (o.tune && !o.tune->eval_data.empty()) o.tune->eval_data = absolute(o.tune->eval_data);
  if (o.tune && !o.tune->chat_template.empty() && !(o.resume && o.tune->chat_template == kTemplateCopy))
    o.tune->chat_template = absolute(o.tune->chat_template);
  if (o.tune && o.tune->started == 0) o.tune->started = static_cast<std::int64_t>(wall_time());
  return o;
}

void resolve_steps(TrainOptions& o, const Workload& data) {
  constexpr std::int64_t kLongest = 500, kShare = 20;
  if (o.epochs > 0) o.steps = data.steps_of(o.epochs);
  if (!o.warmup) o.warmup = std::min(o.steps / kShare, kLongest);
}

TrainOptions tuning_defaults(bool full) {
  TrainOptions o;
  o.tune.emplace().full = full;
  o.model.clear();
  o.batch = 4;
  o.seq = 0;
  o.steps = 0;
  o.epochs = 3;
  o.lr = full ? 2e-5 : 2e-4;
  o.weight_decay = 0.01;
  o.betas = {0.9, 0.999};
  o.checkpoint_steps = 200;
  o.eval_steps = 50;
  return o;
}

double loss_divisor(const TrainOptions& o) {
  return o.global_batch == 0 ? 1 : static_cast<double>(o.global_batch) / static_cast<double>(tokens_of_step(o));
}

// ---- JSON ----------------------------------------------------------------------------------------

io::Json to_json(const TrainOptions& o) {
  io::Json j;
  each_option(o, [&](const char* key, const auto& member, OnResume) { j[key] = value_of(member); });
  if (!o.tune) return j;
  io::Json tune;
  each_option(*o.tune, [&](const char* key, const auto& member, OnResume) { tune[key] = value_of(member); });
  j["tune"] = std::move(tune);
  return j;
}

TrainOptions options_from_json(const io::Json& j, std::string_view source) {
  TrainOptions o;
  const auto read_from = [&](const io::Json& object) {
    return [&](const char* key, auto& member, OnResume) {
      const auto it = object.find(key);
      if (it == object.end()) fail("run", fmt::format("{}: the option `{}` is missing", source, key));
      try {
        read_value(*it, member);
      } catch (const io::Json::exception&) {
        fail("run", fmt::format("{}: the option `{}` has the value {}, which is not of its type", source, key, io::to_text(*it)));
      }
    };
  };
  each_option(o, read_from(j));
  if (const auto tune = j.find("tune"); tune != j.end()) each_option(o.tune.emplace(), read_from(*tune));
  return o;
}

io::Json to_json(const amp::GradScalerOptions& s) {
  return {{"init_scale", s.init_scale},
          {"growth_factor", s.growth_factor},
          {"backoff_factor", s.backoff_factor},
          {"growth_interval", s.growth_interval},
          {"min_scale", s.min_scale},
          {"max_scale", s.max_scale},
          {"hysteresis", s.hysteresis},
          {"max_consecutive_skips", s.max_consecutive_skips},
          {"dynamic", s.dynamic}};
}

io::Json bytes_json(const std::array<std::int64_t, kMemoryCategories>& bytes) {
  io::Json j = io::Json::object();
  for (std::size_t i = 0; i < kMemoryCategories; ++i) j[std::string(name(static_cast<Memory>(i)))] = bytes[i];
  return j;
}

io::Json to_json(const PrecisionPlan& p) {
  return {{"requested", p.requested},
          {"recipe", p.recipe.name},
          {"reason", p.reason},
          {"isa", p.isa},
          {"autocast", p.recipe.autocast ? io::Json(name(p.recipe.low)) : io::Json(nullptr)},
          {"weights", p.recipe.storage == optim::Storage::f32 ? name(Dtype::f32) : name(p.recipe.low)},
          {"storage", optim::name(p.recipe.storage)},
          {"masters", p.recipe.storage == optim::Storage::master},
          {"bytes_per_parameter", p.recipe.bytes_per_parameter},
          {"scaler", p.scaler ? to_json(*p.scaler) : io::Json(nullptr)},
          {"frozen", p.frozen.empty() ? io::Json(nullptr) : io::Json(p.frozen)},
          {"stays_f32", p.stays_f32},
          {"warnings", p.warnings}};
}

// ---- comparison ----------------------------------------------------------------------------------

std::vector<std::string> differences(const TrainOptions& run, const TrainOptions& given, std::int64_t done) {
  if (run.tune.has_value() != given.tune.has_value()) return {run.tune ? "it is a run of mezzo finetune" : "it is a run of mezzo train"};
  std::vector<std::string> out;
  const io::Json wanted = to_json(given);
  const auto compare = [&](const char* key, const io::Json& before, const io::Json& now, OnResume rule) {
    if (rule == OnResume::free || before == now) return;
    std::string text = fmt::format("{}: {} in the run, {} given", flag(key), io::to_text(before), io::to_text(now));
    if (rule == OnResume::may_grow) {
      if (run.schedule == optim::ScheduleKind::constant && given.steps >= done) return;
      text += run.schedule == optim::ScheduleKind::constant ? fmt::format(" ({} are done)", done)
                                                            : fmt::format(" (the {} schedule depends on it)", name(run.schedule));
    }
    out.push_back(std::move(text));
  };
  each_option(run, [&](const char* key, const auto& member, OnResume rule) {
    if (!run.tune || std::string_view(key) != "model") compare(key, value_of(member), wanted[key], rule);  // a file is compared by its fingerprint
  });
  if (run.tune)
    each_option(*run.tune, [&](const char* key, const auto& member, OnResume rule) { compare(key, value_of(member), wanted["tune"][key], rule); });
  return out;
}

}  // namespace mezzo::train
