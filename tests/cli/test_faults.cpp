// test_faults.cpp - what a person sees when a run is stopped, disturbed or diverges: one line, an exit code, and a run that can go on.
#include <signal.h>

#include <algorithm>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "cli/process.h"
#include "io/json.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

struct Run {
  Scratch dir;
  std::string out = dir / "run", metrics = dir / "run/metrics.jsonl";
  Arguments arguments;
  explicit Run(const Arguments& more = {}) {
    write(dir / "text.txt", some_text(6000));
    arguments = join({"train", "--data", dir / "text.txt", "--out", out, "--model", "gpt:layers=1,heads=2,width=16", "--batch", "2", "--seq", "16",
                      "--eval-steps", "0", "--schedule", "constant"},
                     more);
  }
  std::int64_t lines() const {
    const std::string text = fs::exists(metrics) ? read(metrics) : "";
    return std::count(text.begin(), text.end(), '\n');
  }
};

/// One line on stderr that begins with the command.
void check_line(const Result& r, int code, const std::string& part) {
  CAPTURE(r.err);
  CHECK(r.code == code);
  REQUIRE_FALSE(r.lines().empty());
  CHECK(r.lines().back().starts_with("mezzo train: "));
  CHECK(r.lines().back().find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("SIGTERM is answered as Ctrl-C is: a checkpoint, exit code 143; two runs do not share a directory") {
  const Run t({"--steps", "100000"});
  Result second;
  const Result first = run(t.arguments, {.interrupt_when =
                                             [&] {
                                               if (t.lines() < 3) return false;
                                               second = run({"train", "--out", t.out, "--resume"});
                                               return true;
                                             },
                                         .signal = SIGTERM});
  CHECK(first.code == 143);
  CHECK(first.err.find("writing a checkpoint") != std::string::npos);
  CHECK(fs::exists(fs::path(t.out) / "checkpoints" / ("step-" + std::to_string(t.lines()))));
  check_line(second, 1, "is in use by process ");
  CHECK(second.lines().size() == 1);
  const auto more = std::to_string(t.lines() + 2);
  CHECK(run({"train", "--out", t.out, "--resume", "--steps", more}).code == 0);
}

TEST_CASE("a run directory that is removed while it is used: one line, exit code 1") {
  const Run t({"--steps", "100000"});
  bool removed = false;
  const Result r = run(t.arguments, {.interrupt_when = [&] {
                         if (!removed && t.lines() >= 3) fs::remove_all(t.out), removed = true;
                         return false;
                       }});
  check_line(r, 1, "this is no longer the directory that the run was writing to");
  CHECK_FALSE(fs::exists(t.out));
}

TEST_CASE("--on-divergence: what was done, a line each; what is left when nothing helps") {
  const Run t(
      {"--steps", "30", "--lr", "1e30", "--warmup", "0", "--precision", "fp32", "--on-divergence", "fallback", "--fallbacks", "lr=1e-3,lr=1e-30"});
  const Result r = run(t.arguments);
  CHECK_MESSAGE(r.code == 0, r.err);
  const auto count = [&](const std::string& part) {
    const auto lines = r.lines();
    return std::count_if(lines.begin(), lines.end(), [&](const std::string& l) { return l.find(part) != l.npos; });
  };
  CHECK(count("diverged at step 2: ") == 2);
  CHECK(count("Back to the beginning and past the data since, with the learning rate times 0.001") == 1);
  const auto history = io::parse_json(read(t.out + "/config.json"), "config.json")["history"];
  REQUIRE(history.size() == 2);
  CHECK(history[1]["lr_factor"] == 1e-30);
  CHECK(read(t.out + "/report.html").find("diverged at step 2") != std::string::npos);

  const Run none({"--steps", "30", "--lr", "1e30", "--warmup", "0", "--precision", "fp32", "--on-divergence", "rollback", "--max-rollbacks", "1"});
  check_line(run(none.arguments), 1, "step 2: the loss is NaN, and all parameters are finite, the first bad tensor is the gradient of ");
}

TEST_CASE("--on-divergence and its like: a bad value is a line, and exit code 2") {
  const auto refused = [](const Arguments& more, const std::string& part) {
    const Run t(join({"--steps", "4"}, more));
    const Result r = run(t.arguments);
    check_line(r, 2, part);
    CHECK(r.lines().size() == 1);
    CHECK_FALSE(fs::exists(t.out));
  };
  refused({"--on-divergence", "rolback"}, "did you mean `rollback`?");
  refused({"--on-divergence", "fallback", "--fallbacks", "lr,bf61"}, "--fallbacks bf61 given");
  refused({"--on-divergence", "rollback", "--max-rollbacks", "0"}, "--max-rollbacks 0 given");
  refused({"--f32-ops", "sofmax"}, "softmax");
}
