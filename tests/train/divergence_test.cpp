// divergence_test.cpp - what is called a divergence and what is not, going back, changed settings, and that either survives a stop, bit for bit.
#include <signal.h>

#include <cmath>
#include <cstring>
#include <limits>

#include <doctest/doctest.h>

#include <mezzo/autograd.h>

#include "nn/state.h"
#include "train/checkpoint.h"
#include "train/events.h"
#include "train/history.h"
#include "train/machinery.h"
#include "train/recipe_change.h"
#include "train/support.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;
using train::LossTrend;
using train::OnDivergence;

/// The step at which a trend that is fed losses calls a divergence; 0: it does not.
template <class F> std::int64_t diverges(LossTrend& trend, std::int64_t first, std::int64_t last, F&& loss) {
  for (std::int64_t step = first; step <= last; ++step)
    if (!trend.add(step, loss(step)).why.empty()) return step;
  return 0;
}

double normal(Generator& random) {  // of twelve uniform ones
  double sum = -6;
  for (int i = 0; i < 12; ++i) sum += random.below(1 << 20) / double(1 << 20);
  return sum;
}

/// A run of 60 steps with a checkpoint each ten.
train::TrainOptions guarded(const TempDir& dir, std::string_view out, std::string precision, OnDivergence what) {
  auto o = small_run(dir, out, std::move(precision));
  o.model += ",dropout=0.1";
  o.steps = 60;
  o.checkpoint_steps = 10;
  o.keep = 2;
  o.schedule = optim::ScheduleKind::constant;
  o.warmup = 4;
  o.on_divergence = what;
  o.tensorboard = false;
  return o;
}

/// After step `step`, once, one weight becomes `value`: a bit that flipped in memory.
auto flips(train::Trainer& trainer, std::int64_t step, float value, const char* weight = "ln_f.weight") {
  return [&trainer, step, value, weight, done = false](const train::Progress& p) mutable {
    if (p.step != step || std::exchange(done, true)) return;
    for (auto& [path, w] : trainer.model().named_parameters())
      if (path == weight) {
        const autograd::NoGrad off;
        const std::vector<float> values(static_cast<std::size_t>(w.numel()), value);
        nn::load_state({{path, w}}, {{path, tensor(values, w.shape())}});
      }
  };
}

void check_same_end(const train::TrainOptions& a, const train::TrainOptions& b) {
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json"}) {
    CAPTURE(file);
    CHECK(slurp(train::checkpoint_path(a.out, a.steps) / file) == slurp(train::checkpoint_path(b.out, b.steps) / file));
  }
  CHECK(slurp(a.out / "model/model.safetensors") == slurp(b.out / "model/model.safetensors"));
  CHECK((metrics_of(a.out) == metrics_of(b.out)));
  CHECK(slurp(a.out / "events.jsonl") == slurp(b.out / "events.jsonl"));
  CHECK(io::read_json(a.out / "config.json")["history"] == io::read_json(b.out / "config.json")["history"]);
}

/// The run `o` with a weight flipped after step 37, never stopped; stopped right after it went back, and resumed; killed there, and resumed.
train::History check_survives_a_stop(const TempDir& dir, const train::TrainOptions& o, float value) {
  const auto s = [&] {
    train::Trainer straight(o);
    return straight.run(flips(straight, 37, value));
  }();
  CHECK(s.status == train::RunStatus::finished);
  CHECK(s.step == 60);
  const auto config = io::read_json(o.out / "config.json");
  const auto history = train::history_of(config, "config.json");
  REQUIRE(history.size() == 1);
  CHECK(history[0].from == 30);
  CHECK(s.rollbacks == 1);

  auto stopped = o;
  stopped.out = dir / (o.out.filename().native() + "-stopped");
  {
    train::Trainer trainer(stopped);
    std::int64_t last = 0;
    bool back = false;
    auto flip = flips(trainer, 37, value);
    trainer.run(
        [&, flip](const train::Progress& p) mutable {
          back = back || p.step <= last;
          last = p.step;
          flip(p);
        },
        [&] { return last == 32 && back; });
    CHECK(train::checkpoint_steps(stopped.out).back() == 33);
  }
  stopped.resume = true;
  run(stopped);
  check_same_end(o, stopped);

  auto killed = o;
  killed.out = dir / (o.out.filename().native() + "-killed");
  const int status = in_child([&] {
    train::Trainer trainer(killed);
    std::int64_t last = 0;
    auto flip = flips(trainer, 37, value);
    trainer.run([&, flip](const train::Progress& p) mutable {
      if (p.step <= last) ::kill(::getpid(), SIGKILL);  // the first step after it went back: no checkpoint knows of that yet
      last = p.step;
      flip(p);
    });
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(train::checkpoint_steps(killed.out).back() == 30);
  killed.resume = true;
  run(killed);
  check_same_end(o, killed);
  return history;
}

}  // namespace

// ---- what is a divergence ------------------------------------------------------------------------

TEST_CASE("ordinary noise is no divergence, in 20,000 steps of each kind") {
  constexpr std::int64_t kSteps = 20000;
  Generator random(5);
  const auto in_ten = [&](std::uint32_t n) { return random.below(10) < n; };
  const auto check_quiet = [&](const char* kind, auto&& loss) {
    LossTrend trend;
    CHECK_MESSAGE(diverges(trend, 1, kSteps, loss) == 0, kind);
    CHECK(trend.last_ordinary > kSteps - 10);
  };
  check_quiet("normal", [&](std::int64_t) { return 2 + 0.3 * normal(random); });
  check_quiet("small", [&](std::int64_t) { return 0.01 + 0.001 * normal(random); });
  check_quiet("falling", [&](std::int64_t s) { return 2 + 3.5 * std::exp(-static_cast<double>(s) / 50) + 0.1 * normal(random); });
  check_quiet("two kinds of text", [&](std::int64_t) { return (in_ten(3) ? 4.0 : 1.0) + 0.1 * normal(random); });
  check_quiet("a few very hard ones", [&](std::int64_t) { return random.below(50) == 0 ? 9.0 : 1.5 + 0.1 * normal(random); });
  check_quiet("long tails", [&](std::int64_t) { return std::exp(0.7 * normal(random)); });
  check_quiet("learnt by heart", [&](std::int64_t s) { return s < 200 ? 3.0 / static_cast<double>(s) : 0.015 + 0.002 * normal(random); });
}

TEST_CASE("a loss that rises and stays is a divergence, and it is known since when") {
  Generator random(6);
  const auto noise = [&] { return 0.05 * normal(random); };
  {
    LossTrend trend;
    CHECK(diverges(trend, 1, 300, [&](std::int64_t) { return 2 + noise(); }) == 0);
    CHECK(*trend.limit() > 2.1);
    CHECK(*trend.limit() < 2.6);
    for (std::int64_t s = 301; s <= 304; ++s) CHECK(trend.add(s, 7).why.empty());
    CHECK(trend.last_ordinary == 300);
    const auto rise = trend.add(305, 7.5);
    CHECK(contains(rise.why, "for 5 steps, at 7.5 now; its median before was 2"));
    CHECK(rise.good == 299);                                                           // whose weights gave step 300 its ordinary loss
    CHECK(diverges(trend, 306, 600, [&](std::int64_t) { return 7 + noise(); }) == 0);  // said once
  }
  {
    LossTrend trend;  // four in a row, again and again
    CHECK(diverges(trend, 1, 2000, [&](std::int64_t s) { return s > 100 && s % 8 >= 4 ? 6.0 : 2 + noise(); }) == 0);
  }
  {
    LossTrend trend;  // slower than any spike: 1 % of the first loss a step
    diverges(trend, 1, 200, [&](std::int64_t) { return 2 + noise(); });
    const std::int64_t step = diverges(trend, 201, 600, [&](std::int64_t s) { return 2 + 0.02 * static_cast<double>(s - 200) + noise(); });
    CHECK(step > 210);
    CHECK(step < 260);
  }
  {
    LossTrend trend;
    for (std::int64_t s = 1; s <= 12; ++s) trend.add(s, std::numeric_limits<double>::quiet_NaN());
    CHECK(trend.not_finite == 12);
    CHECK(trend.last_ordinary == 0);
    trend.add(13, 2);
    CHECK(trend.not_finite == 0);
  }
}

TEST_CASE("training that goes well is left alone, in every recipe; the guard changes no bit of it") {
  const TempDir dir;
  write_small_text(dir, 20000);
  for (const auto& recipe : train::recipe_names()) {
    CAPTURE(recipe);
    auto plain = small_run(dir, recipe + "-plain", recipe);
    plain.batch = 4;
    plain.steps = 300;
    plain.lr = 4e-3;
    auto watched = plain;
    watched.out = dir / recipe;
    watched.on_divergence = OnDivergence::fallback;
    const auto s = run(watched);
    CHECK(s.rollbacks == 0);
    CHECK(io::read_json(watched.out / "config.json")["history"].empty());
    for (const auto& e : train::read_events(watched.out)) CHECK_MESSAGE((e.kind == "overflow" || e.kind == "scale"), e.text);
    if (recipe != "fp16-master" && recipe != "bf16-sr") continue;
    run(plain);
    CHECK(metrics_of(plain.out) == metrics_of(watched.out));
  }
}

// ---- what is done about it -----------------------------------------------------------------------

TEST_CASE("rollback: a weight that became NaN is forgotten, the run goes on with other data, and a stop or a kill changes no bit of that") {
  const TempDir dir;
  write_small_text(dir);
  const auto o = guarded(dir, "run", "fp32", OnDivergence::rollback);
  const auto history = check_survives_a_stop(dir, o, std::nanf(""));
  CHECK(history[0].step == 38);
  CHECK(history[0].position == 38 * 2);  // windows: none of the eight steps that are gone is taken again
  CHECK(history[0].fallback.empty());
  CHECK(contains(history[0].reason, "the loss is NaN, and the first bad tensor is the parameter `ln_f.weight` (NaN)"));

  const auto events = train::read_events(o.out);
  REQUIRE(events.size() == 1);
  CHECK(events[0].kind == "divergence");
  CHECK(events[0].step == 30);
  CHECK(contains(events[0].text, "diverged at step 38: "));
  CHECK(contains(events[0].text, "Back to step 30 and past the data since"));
  CHECK((*events[0].details)["diverged"] == 38);
  const auto lines = metrics_of(o.out);
  REQUIRE(lines.size() == 60);
  for (std::size_t i = 0; i < lines.size(); ++i) CHECK(lines[i]["step"] == static_cast<std::int64_t>(i + 1));

  auto undisturbed = guarded(dir, "undisturbed", "fp32", OnDivergence::rollback);
  run(undisturbed);
  const auto other = metrics_of(undisturbed.out);
  for (std::size_t i = 0; i < 30; ++i) CHECK(lines[i] == other[i]);
  CHECK(lines[30]["loss"] != other[30]["loss"]);
  CHECK(lines[30]["lr"] == other[30]["lr"]);
}

TEST_CASE("rollback: a weight that became large, so that the loss rises and stays finite") {
  const TempDir dir;
  write_small_text(dir);
  auto o = guarded(dir, "run", "bf16", OnDivergence::rollback);
  o.checkpoint_steps = 1;  // those of the steps that diverged must not push the good one out
  o.keep = 2;
  train::Trainer trainer(o);
  const auto s = trainer.run(flips(trainer, 37, 300));
  CHECK(s.step == 60);
  const auto history = train::history_of(io::read_json(o.out / "config.json"), "config.json");
  REQUIRE(history.size() == 1);
  CHECK(history[0].step == 42);
  CHECK(history[0].from == 36);  // the weights of step 37 were bad: step 38 showed it
  CHECK(contains(history[0].reason, "the loss has been above "));
  CHECK(s.train_loss < 5);
}

TEST_CASE("warn and stop: NaN ends the run either way; a loss that has risen is a warning, or the end") {
  const TempDir dir;
  write_small_text(dir);
  for (const auto what : {OnDivergence::warn, OnDivergence::stop}) {
    CAPTURE(train::name(what));
    const std::string name(train::name(what));
    auto nan = guarded(dir, "nan-" + name, "bf16", what);
    train::Trainer a(nan);
    const std::string error = error_of([&] { a.run(flips(a, 37, std::nanf(""))); });
    CHECK(contains(error, "step 38: the loss is NaN"));
    CHECK(contains(error, "--clip-norm, in a new run; --resume-step goes on from a checkpoint of up to step 36, with --on-divergence rollback"));
    CHECK(train::checkpoint_steps(nan.out) == std::vector<std::int64_t>{20, 30});
    const auto events = train::read_events(nan.out);
    REQUIRE(events.size() == 2);
    CHECK(contains(events[0].text, "not applied: NaN in the gradient of "));
    CHECK_FALSE(contains(events[0].text, "skipped"));
    CHECK(events[1].kind == "divergence");

    auto risen = guarded(dir, "risen-" + name, "bf16", what);
    train::Trainer b(risen);
    std::string end = "no error";
    end = error_of([&] { b.run(flips(b, 37, 300)); });
    const auto said = train::read_events(risen.out);
    REQUIRE_FALSE(said.empty());
    CHECK(said[0].step == 42);
    CHECK(contains(said[0].text, "the loss has been above "));
    CHECK(said[0].kind == (what == OnDivergence::warn ? "warning" : "divergence"));
    if (what == OnDivergence::warn) CHECK(end == "no error");
    else CHECK(contains(end, "step 42: the loss has been above "));
    if (what == OnDivergence::stop) CHECK(contains(end, "--resume-step goes on from a checkpoint of up to step 36"));
  }
}

TEST_CASE("the hint of a run that ended in NaN is true: the newest checkpoint and rollback go on") {
  const TempDir dir;
  write_small_text(dir);
  auto o = guarded(dir, "run", "fp32", OnDivergence::warn);
  {
    train::Trainer first(o);
    CHECK(contains(error_of([&] { first.run(flips(first, 37, std::nanf(""))); }), "up to step 36"));
  }
  o.resume_step = 30;
  o.on_divergence = OnDivergence::rollback;
  CHECK(train::Trainer(o).run().step == o.steps);
}

TEST_CASE("a validation loss that is not finite: never the best, a warning under warn, else what a loss is that is not finite") {
  const TempDir dir;
  write_small_text(dir);
  // In fp16 the step after the flip is skipped, which is no divergence; then it is evaluated.
  const auto broken = [&](OnDivergence what) {
    auto o = guarded(dir, fmt::format("run-{}", train::name(what)), "fp16", what);
    o.checkpoint_steps = 2;
    o.steps = 5;
    return o;
  };
  auto o = broken(OnDivergence::warn);
  {
    train::Trainer trainer(o);
    const auto s = trainer.run(flips(trainer, 4, 1e30F));
    CHECK(s.step == 5);
    CHECK(s.best_step == 0);
    REQUIRE(s.val_loss);
    CHECK_FALSE(std::isfinite(*s.val_loss));
    const auto events = train::read_events(o.out);
    REQUIRE_FALSE(events.empty());
    CHECK(events.back().kind == "warning");
    CHECK(contains(events.back().text, "the validation loss is not finite"));
  }
  o = broken(OnDivergence::stop);
  {
    train::Trainer trainer(o);
    CHECK(contains(error_of([&] { trainer.run(flips(trainer, 4, 1e30F)); }), "step 5: the validation loss is not finite"));
  }
  o = broken(OnDivergence::rollback);
  train::Trainer trainer(o);
  const auto s = trainer.run(flips(trainer, 4, 1e30F));
  CHECK(s.rollbacks == 1);
  CHECK(s.best_step > 0);
  CHECK(std::isfinite(s.best_loss));
}

TEST_CASE("rollbacks are counted: what does not help ends with a line that says so") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  o.lr = 1e30;
  o.warmup = 0;
  o.steps = 20;
  o.on_divergence = OnDivergence::rollback;
  o.max_rollbacks = 3;
  const std::string error = error_of([&] { run(o); });
  CHECK(contains(error, "[train] step 2: the loss is NaN"));
  CHECK(contains(error, "; 3 rollbacks did not help (--max-rollbacks)"));
  const auto history = train::history_of(io::read_json(o.out / "config.json"), "config.json");
  REQUIRE(history.size() == 3);
  for (const auto& a : history) CHECK(a.from == 0);
  CHECK(history[0].position < history[1].position);
  const auto events = train::read_events(o.out);
  REQUIRE(events.size() == 5);  // three at step 0, where it went back to, and at step 2 what the last was and that it ends
  CHECK(contains(events[2].text, "Back to the beginning"));
}

TEST_CASE("fallback: a learning rate far too high comes down, and the list has an end") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  o.lr = 1e30;
  o.warmup = 0;
  o.steps = 20;
  o.on_divergence = OnDivergence::fallback;
  o.fallbacks = {"lr=1e-33"};
  CHECK(run(o).step == 20);
  for (const auto& line : metrics_of(o.out)) CHECK(line["lr"].get<double>() < 1.1e-3);
  auto resumed = o;
  resumed.resume = true;
  resumed.steps = 20;
  CHECK(run(resumed).step == 20);  // --lr is what was asked for, the factor stays in the history

  o.out = dir / "end";
  o.fallbacks = {"op", "lr", "bf16", "fp32"};
  const std::string error = error_of([&] { run(o); });
  CHECK(contains(error,
                 "no fallback is left: lr (used), op (no op in f32 alone would have cured it), bf16 (the run is in f32 already), fp32 (the run "
                 "is in f32 already)"));
}

TEST_CASE("fallback: a constant loss scale that all gradients exceed: bf16 needs none; masters and moments go along, bit for bit through a stop") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "scale", "fp16");
  o.steps = 12;
  o.loss_scale = "1e9";
  o.on_divergence = OnDivergence::fallback;
  train::Trainer trainer(o);
  const auto s = trainer.run();
  CHECK(s.step == 12);
  CHECK(s.skipped == 12);  // a short run: its end comes before a hundred in a row
  o.out = dir / "longer";
  o.steps = 110;
  {
    train::Trainer longer(o);
    const auto t = longer.run();
    CHECK(t.skipped == 0);
    CHECK(t.rollbacks == 1);
    CHECK(longer.plan().recipe.name == "bf16");
    CHECK_FALSE(longer.plan().scaler);
  }
  CHECK(io::read_json(o.out / "config.json")["precision"]["recipe"] == "bf16");
  CHECK(io::read_json(o.out / "config.json")["options"]["precision"] == "fp16");
  auto again = o;
  again.resume = true;
  CHECK(train::Trainer(again).plan().recipe.name == "bf16");

  // A weight that is Inf: every loss is NaN, and no scale changes that.
  auto master = guarded(dir, "master", "fp16-master", OnDivergence::fallback);
  const auto history = check_survives_a_stop(dir, master, std::numeric_limits<float>::infinity());
  CHECK(history[0].precision == "bf16-master");
  CHECK(history[0].step == 47);
  CHECK(contains(history[0].reason, "the loss of 10 steps in a row is not finite"));
  CHECK(train::read_events(master.out).back().kind == "fallback");
}

TEST_CASE("fallback: the op that overflowed goes to f32, in training and in evaluation") {
  const TempDir dir;
  write_small_text(dir);
  auto o = guarded(dir, "run", "fp16", OnDivergence::fallback);
  o.fallbacks = {"op"};
  const train::TrainOptions asked = o;
  const auto next = train::next_fallback(asked, {}, {.now = train::recipe("fp16"), .curing_op = "add", .range = true},
                                         [](const train::TrainOptions& t) { return t.f32_ops == std::vector<std::string>{"add"} ? "" : "wrong"; });
  REQUIRE(next.action);
  CHECK(next.action->op == "add");
  CHECK(train::describe_change(*next.action) == "with add in f32");
  const auto policy = train::policy_of(train::in_force(asked, {*next.action}));
  REQUIRE(policy);
  CHECK(policy->of("add") == amp::Cast::f32);

  auto by_hand = guarded(dir, "by-hand", "bf16", OnDivergence::warn), plain = guarded(dir, "plain", "bf16", OnDivergence::warn);
  by_hand.f32_ops = {"add", "gelu"};
  const auto a = run(by_hand), b = run(plain);
  CHECK(*a.val_loss != *b.val_loss);
  CHECK(*a.val_loss == doctest::Approx(*b.val_loss).epsilon(0.05));
  by_hand.resume = true;
  by_hand.f32_ops = {"gelu"};
  CHECK(contains(error_of([&] { train::Trainer t(by_hand); }), "--f32-ops: [\"add\",\"gelu\"] in the run, [\"gelu\"] given"));
}

}  // namespace mezzo::test
