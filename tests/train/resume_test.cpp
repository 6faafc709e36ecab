// resume_test.cpp - a run that was stopped and resumed is the run that was not, bit for bit.
#include <signal.h>

#include <doctest/doctest.h>

#include <mezzo/io.h>

#include "train/checkpoint.h"
#include "train/support.h"

namespace mezzo::test {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* recipe;
  const char* model;
  int accumulate;
  std::int64_t global_batch;
  const char *optimizer = "adamw", *state_dtype = "";
};

/// A checkpoint's files as bytes; the config apart, which names the run's directory nowhere but says what was planned.
std::map<std::string, std::string> files_of(const fs::path& checkpoint) {
  std::map<std::string, std::string> files;
  for (const auto& e : fs::directory_iterator(checkpoint)) files[e.path().filename()] = slurp(e.path());
  return files;
}

void check_equal(const fs::path& a, const fs::path& b, std::int64_t step) {
  const auto one = files_of(train::checkpoint_path(a, step)), two = files_of(train::checkpoint_path(b, step));
  REQUIRE(one.size() == 4);
  for (const auto& file : one) {
    CAPTURE(file.first);
    REQUIRE(two.count(file.first) == 1);
    CHECK(file.second == two.at(file.first));
  }
  const auto x = metrics_of(a), y = metrics_of(b);
  REQUIRE(x.size() == static_cast<std::size_t>(step));
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] == y[i]);
}

}  // namespace

TEST_CASE("40 steps at once, and 20, a stop, and 20: the same weights, moments, scaler, generator, metrics") {
  const TempDir dir;
  write_small_text(dir);
  const Case cases[] = {{"fp32", "", 1, 0},
                        {"bf16", ",dropout=0.1", 1, 0},
                        {"fp16", "", 2, 0},
                        {"bf16-master", ",dropout=0.1", 2, 0},
                        {"fp16-master", ",dropout=0.1", 1, 4096},
                        {"fp16-master", "", 3, 0},
                        {"bf16-split", ",dropout=0.1", 1, 0},
                        {"bf16-split", "", 2, 0, "lion"},
                        {"bf16-kahan", "", 1, 0},
                        {"bf16-kahan", "", 2, 0, "sgd", "bf16"},
                        {"bf16-sr", ",dropout=0.1", 1, 0},
                        {"bf16-sr", "", 2, 0, "adafactor"},
                        {"bf16-sr", ",context=256", 1, 0, "adam", "u8"},
                        {"bf16-pure", "", 1, 0},
                        {"bf16-pure", "", 2, 0, "adagrad"},
                        {"fp16-pure", "", 1, 0},
                        {"fp32", ",vocab=300", 1, 0, "adamw", "u8"},
                        {"bf16", "", 1, 0, "adamw", "bf16"}};
  for (const auto& c : cases) {
    CAPTURE(c.optimizer);
    CAPTURE(c.state_dtype);
    CAPTURE(c.recipe);
    CAPTURE(c.accumulate);
    CAPTURE(c.model);
    const auto name = fmt::format("{}-{}-{}-{}", c.recipe, c.accumulate, c.optimizer, c.state_dtype);
    auto o = small_run(dir, "straight-" + name, c.recipe);
    o.optimizer = c.optimizer;
    o.state_dtype = c.state_dtype;
    o.model += c.model;
    o.accumulate = c.accumulate;
    o.global_batch = c.global_batch;
    o.steps = 40;
    o.eval_steps = 7;
    const auto straight = run(o);
    CHECK(straight.status == train::RunStatus::finished);

    auto half = o;
    half.out = dir / ("halves-" + name);
    const auto first = train::Trainer(half).run({}, [&, n = 0]() mutable { return ++n == 20; });
    CHECK(first.status == train::RunStatus::interrupted);
    CHECK(first.step == 20);
    CHECK(first.checkpoint == train::checkpoint_path(half.out, 20));
    default_generator().seek(12345);  // whatever happened in between
    half.resume = true;
    const auto second = run(half);
    CHECK(second.status == train::RunStatus::finished);
    CHECK(second.step == 40);
    CHECK(second.skipped == straight.skipped);
    CHECK(second.zero_fraction == straight.zero_fraction);
    CHECK(*second.val_loss == *straight.val_loss);
    check_equal(o.out, half.out, 40);
    CHECK(slurp(o.out / "model" / "model.safetensors") == slurp(half.out / "model" / "model.safetensors"));
  }
}

TEST_CASE("killed after a checkpoint: the lines written since are written again") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "straight", "bf16");
  o.steps = 12;
  o.checkpoint_steps = 5;
  run(o);

  auto killed = o;
  killed.out = dir / "killed";
  const int status = in_child([&] {
    train::Trainer(killed).run([](const train::Progress& p) {
      if (p.step == 8) ::kill(::getpid(), SIGKILL);
    });
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(metrics_of(killed.out).size() == 8);
  std::ofstream(killed.out / "metrics.jsonl", std::ios::app) << "{\"step\":9,\"lo";  // torn, as a crash of the machine may leave it
  killed.resume = true;
  const auto s = run(killed);
  CHECK(s.step == 12);
  check_equal(o.out, killed.out, 12);
}

TEST_CASE("stopped before the first checkpoint: --resume begins again") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "straight");
  run(o);
  auto again = o;
  again.out = dir / "again";
  const int status = in_child([&] {
    train::Trainer(again).run([](const train::Progress& p) {
      if (p.step == 3) ::kill(::getpid(), SIGKILL);
    });
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  again.resume = true;
  {
    train::Trainer trainer(again);
    REQUIRE(trainer.warnings().size() == 1);
    CHECK(contains(trainer.warnings()[0], "has no checkpoint to go on from: the run starts from the beginning"));
    trainer.run();
  }
  check_equal(o.out, again.out, o.steps);
}

TEST_CASE("a finished run, resumed: nothing is trained, the model is written again") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  const auto first = run(o);
  fs::remove_all(o.out / "model");
  o.resume = true;
  const auto second = run(o);
  CHECK(second.step == o.steps);
  CHECK(*second.val_loss == *first.val_loss);
  CHECK(fs::exists(o.out / "model" / "model.safetensors"));
  CHECK(metrics_of(o.out).size() == static_cast<std::size_t>(o.steps));
}

TEST_CASE("a run with a constant schedule may be made longer") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "long");
  o.schedule = optim::ScheduleKind::constant;
  o.warmup = 2;
  o.steps = 12;
  run(o);
  auto grown = o;
  grown.out = dir / "grown";
  grown.steps = 7;
  run(grown);
  grown.steps = 12;
  grown.resume = true;
  run(grown);
  const auto a = metrics_of(o.out), b = metrics_of(grown.out);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i)
    if (i != 6) CHECK(a[i] == b[i]);  // where the short run ended it took its validation loss
}

// ---- what is refused -----------------------------------------------------------------------------

TEST_CASE("options that contradict the run: an Error that names each") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run", "bf16");
  o.steps = 4;
  run(o);
  o.resume = true;
  o.lr = 1e-2;
  o.batch = 4;
  o.steps = 9;
  o.model = "gpt:layers=1,heads=2,width=32";
  o.precision = "fp16";
  o.optimizer = "lion";
  o.state_dtype = "bf16";
  o.keep = 1;  // free
  const std::string error = error_of([&] { run(o); });
  CAPTURE(error);
  CHECK(contains(error, "--lr: 0.003 in the run, 0.01 given"));
  CHECK(contains(error, "--batch: 2 in the run, 4 given"));
  CHECK(contains(error, "--steps: 4 in the run, 9 given (the cosine schedule depends on it)"));
  CHECK(contains(error, "--optimizer: \"adamw\" in the run, \"lion\" given"));
  CHECK(contains(error, "--state-dtype: \"\" in the run, \"bf16\" given"));
  CHECK(contains(error, "--model: "));
  CHECK(contains(error, "--precision: \"bf16\" in the run, \"fp16\" now"));
  CHECK(contains(error, "--loss-scale: "));
  CHECK_FALSE(contains(error, "--keep"));
  CHECK_FALSE(contains(error, "--seed"));

  auto other_text = small_run(dir, "run", "bf16");
  other_text.steps = 4;
  other_text.resume = true;
  spit(dir / "text.txt", small_text(6000) + "more");
  CHECK(contains(error_of([&] { run(other_text); }), "the text (its fingerprint)"));
}

TEST_CASE("another number of threads: allowed, and said") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  train::Trainer(o).run({}, [n = 0]() mutable { return ++n == 4; });
  o.resume = true;
  o.threads = 2;
  train::Trainer trainer(o);
  REQUIRE(trainer.warnings().size() == 1);
  CHECK(contains(trainer.warnings()[0], "2 threads now, 1 before"));
  CHECK(trainer.first_step() == 4);
  CHECK(trainer.run().step == o.steps);
}

TEST_CASE("a checkpoint that was shortened or altered is noticed, and an older one that is whole is offered") {
  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run", "fp16-master");
  o.steps = 9;
  o.checkpoint_steps = 3;
  run(o);
  CHECK(train::checkpoint_steps(o.out) == std::vector<std::int64_t>{3, 6, 9});
  const auto last = metrics_of(o.out);
  const auto newest = train::checkpoint_path(o.out, 9);
  o.resume = true;

  const auto damaged = [&](const char* file, auto&& damage) {
    const fs::path path = newest / file;
    const std::string good = slurp(path);
    std::string bad = good;
    damage(bad);
    spit(path, bad);
    const std::string error = error_of([&] { run(o); });
    CAPTURE(error);
    CHECK(contains(error, file));
    CHECK(contains(error, "step-6 is whole: resume from it with --resume-step 6"));
    spit(path, good);
  };
  for (const char* file : {"weights.safetensors", "optimizer.safetensors", "state.json"}) {
    CAPTURE(file);
    damaged(file, [](std::string& s) { s.resize(s.size() / 2); });
    damaged(file, [](std::string& s) { s[s.size() - 5] ^= 1; });
  }
  damaged("manifest.json", [](std::string& s) { s.resize(s.size() / 2); });
  {
    fs::rename(newest / "optimizer.safetensors", dir / "away");
    CHECK(contains(error_of([&] { run(o); }), "optimizer.safetensors"));
    fs::rename(dir / "away", newest / "optimizer.safetensors");
    fs::rename(newest / "manifest.json", dir / "away");
    const std::string error = error_of([&] { run(o); });
    CHECK(error.starts_with("[checkpoint] " + newest.native()));
    CHECK(contains(error, "manifest.json: No such file or directory. Hint: "));
    fs::rename(dir / "away", newest / "manifest.json");
  }

  o.resume_step = 5;
  CHECK(contains(error_of([&] { run(o); }), "checkpoints of the steps 3, 6, 9"));
  spit(newest / "state.json", "damaged");
  o.resume_step = 6;
  run(o);
  CHECK(metrics_of(o.out) == last);
  CHECK(train::checkpoint_steps(o.out) == std::vector<std::int64_t>{3, 6, 9});
}

}  // namespace mezzo::test
