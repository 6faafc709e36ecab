// options.cpp - a run's options: checked, resolved, as JSON, compared.
#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/vocabulary.h"
#include "train/rules.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kOp = "train";

/// Whether a resumed run may differ in an option: in none that decides a number of the training.
enum class OnResume : std::uint8_t { same, free, may_grow };

/// All options that are written down, once: f(key, member, OnResume). precision and loss_scale are compared as the plan they resolve to.
template <class Options, class F> void each_option(Options& o, F&& f) {
  using enum OnResume;
  f("data", o.data, free);  // the text itself is compared, by its fingerprint
  f("model", o.model, same);
  f("vocab", o.vocab, same);
  f("val_fraction", o.val_fraction, same);
  f("seed", o.seed, same);
  f("batch", o.batch, same);
  f("seq", o.seq, same);
  f("steps", o.steps, may_grow);
  f("accumulate", o.accumulate, same);
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
  f("precision", o.precision, free);
  f("loss_scale", o.loss_scale, free);
  f("checkpoint_steps", o.checkpoint_steps, free);
  f("keep", o.keep, free);
  f("eval_steps", o.eval_steps, free);
  f("eval_tokens", o.eval_tokens, free);
  f("tensorboard", o.tensorboard, free);
  f("threads", o.threads, free);
}

template <class T> io::Json value_of(const T& x) { return x; }
io::Json value_of(const fs::path& x) { return x.native(); }
io::Json value_of(const optim::ScheduleKind& x) { return name(x); }
template <class T> io::Json value_of(const std::optional<T>& x) { return x ? io::Json(*x) : io::Json(nullptr); }

template <class T> void read_value(const io::Json& j, T& x) { j.get_to(x); }
void read_value(const io::Json& j, fs::path& x) { x = j.get<std::string>(); }
void read_value(const io::Json& j, optim::ScheduleKind& x) { x = optim::schedule_from_name(j.get<std::string>()); }
template <class T> void read_value(const io::Json& j, std::optional<T>& x) { x = j.is_null() ? std::optional<T>() : j.get<T>(); }

std::string flag(std::string_view key) {
  std::string s = fmt::format("--{}", key);
  std::replace(s.begin(), s.end(), '_', '-');
  return s;
}

template <class T> void require(bool ok, std::string_view key, const T& given, std::string_view wanted) {
  if (!ok) fail(kOp, fmt::format("{} {} given, {} wanted", flag(key), given, wanted));
}

}  // namespace

// ---- checks and resolution -----------------------------------------------------------------------

void check(const TrainOptions& o) {
  constexpr std::int64_t kTokens = std::numeric_limits<std::int32_t>::max();  // of a step
  if (o.data.empty()) fail(kOp, "no --data given, a text file or a directory of text files wanted");
  if (o.out.empty()) fail(kOp, "no --out given, a directory for the run wanted");
  const auto positive = [](std::string_view key, auto x) { require(x >= 1, key, x, "1 or more"); };
  require(o.vocab == 0 || (o.vocab >= kLeastVocab && o.vocab <= kMostVocab), "vocab", o.vocab,
          fmt::format("0 (tokens are bytes) or {} to {}", kLeastVocab, kMostVocab));
  positive("batch", o.batch);
  positive("seq", o.seq);
  positive("steps", o.steps);
  positive("accumulate", o.accumulate);
  if (o.batch > kTokens / o.seq || o.batch * o.seq > kTokens / o.accumulate)
    fail(kOp, fmt::format("--batch {} --seq {} --accumulate {} given: more than {} tokens a step", o.batch, o.seq, o.accumulate, kTokens));
  require(o.global_batch == 0 || o.global_batch >= tokens_of_step(o), "global-batch", o.global_batch,
          fmt::format("0, or at least the {} tokens that a step runs (batch x seq x accumulate)", tokens_of_step(o)));

  const auto finite = [](double x) { return std::isfinite(x); };
  const auto share = [](double x) { return x >= 0 && x < 1; };
  require(o.lr > 0 && finite(o.lr), "lr", o.lr, "a finite number above 0");
  // A run that is resumed for fewer steps than it was planned for keeps its warm-up, which may then not end.
  require(!o.warmup || (*o.warmup >= 0 && (o.resume || *o.warmup <= o.steps)), "warmup", o.warmup.value_or(0), fmt::format("0 to {} steps", o.steps));
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
  require(o.threads >= 0 && o.threads <= 4096, "threads", o.threads, "0 (as many as there are cores) to 4096");
}

models::ModelOptions resolve_model(const TrainOptions& o, std::int64_t vocab) {
  const models::ModelOptions m = models::model_from_spec(o.model, {.vocab = vocab, .context = o.seq});
  if (models::vocab(m) < vocab) fail("model", fmt::format("vocab {} given, at least the tokenizer's {} wanted", models::vocab(m), vocab));
  if (models::context(m) < o.seq) fail("model", fmt::format("context {} given, at least the {} tokens of --seq wanted", models::context(m), o.seq));
  return m;
}

TrainOptions resolved(TrainOptions o, const models::ModelOptions& m) {
  constexpr std::int64_t kLongest = 500, kShare = 20;
  check(o);
  if (!o.warmup) o.warmup = std::min(o.steps / kShare, kLongest);
  o.betas = betas_of(o);
  o.model = models::to_spec(m);
  o.data = fs::absolute(o.data).lexically_normal();
  o.out = fs::absolute(o.out).lexically_normal();
  if (!o.out.has_filename()) o.out = o.out.parent_path();  // a trailing slash
  return o;
}

double loss_divisor(const TrainOptions& o) {
  return o.global_batch == 0 ? 1 : static_cast<double>(o.global_batch) / static_cast<double>(tokens_of_step(o));
}

// ---- JSON ----------------------------------------------------------------------------------------

io::Json to_json(const TrainOptions& o) {
  io::Json j;
  each_option(o, [&](const char* key, const auto& member, OnResume) { j[key] = value_of(member); });
  return j;
}

TrainOptions options_from_json(const io::Json& j, std::string_view source) {
  TrainOptions o;
  each_option(o, [&](const char* key, auto& member, OnResume) {
    const auto it = j.find(key);
    if (it == j.end()) fail("run", fmt::format("{}: the option `{}` is missing", source, key));
    try {
      read_value(*it, member);
    } catch (const io::Json::exception&) {
      fail("run", fmt::format("{}: the option `{}` has the value {}, which is not of its type", source, key, io::to_text(*it)));
    }
  });
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
          {"stays_f32", p.stays_f32},
          {"warnings", p.warnings}};
}

// ---- comparison ----------------------------------------------------------------------------------

std::vector<std::string> differences(const TrainOptions& run, const TrainOptions& given, std::int64_t done) {
  std::vector<std::string> out;
  const io::Json wanted = to_json(given);
  each_option(run, [&](const char* key, const auto& member, OnResume rule) {
    const io::Json before = value_of(member), &now = wanted[key];
    if (rule == OnResume::free || before == now) return;
    std::string text = fmt::format("{}: {} in the run, {} given", flag(key), io::to_text(before), io::to_text(now));
    if (rule == OnResume::may_grow) {
      if (run.schedule == optim::ScheduleKind::constant && given.steps >= done) return;
      text += run.schedule == optim::ScheduleKind::constant ? fmt::format(" ({} are done)", done)
                                                            : fmt::format(" (the {} schedule depends on it)", name(run.schedule));
    }
    out.push_back(std::move(text));
  });
  return out;
}

}  // namespace mezzo::train
