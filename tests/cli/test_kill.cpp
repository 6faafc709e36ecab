// test_kill.cpp - kill -9 at any moment: the run goes on from its last checkpoint, ends as if nothing had happened, and leaves no litter.
// MEZZO_KILLS says how many times (12 without it).
#include <signal.h>

#include <cstdlib>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <mezzo/random.h>

#include "cli/process.h"
#include "io/json.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

/// What a run has written that no clock decides.
std::string trace_of(const fs::path& run) {
  std::istringstream lines(read(run / "metrics.jsonl"));
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    auto j = io::Json::parse(line);
    for (const char* key : {"tokens_per_second", "peak_bytes"}) j.erase(key);
    all += io::to_text(j) + "\n";
  }
  return all + read(run / "model/model.safetensors");
}

std::vector<std::string> litter(const fs::path& run) {
  std::vector<std::string> found;
  for (const auto& e : fs::recursive_directory_iterator(run))
    if (e.path().filename().native().starts_with(".tmp-")) found.push_back(e.path().native());
  return found;
}

}  // namespace

TEST_CASE("kill -9 at random moments costs nothing but time") {
  const char* asked = std::getenv("MEZZO_KILLS");
  const int wanted = asked ? std::atoi(asked) : 12;
  const Scratch dir;
  write(dir / "text.txt", some_text(6000));
  const auto command = [&](const std::string& out) {
    return std::vector<std::string>{"train",
                                    "--data",
                                    dir / "text.txt",
                                    "--out",
                                    out,
                                    "--model",
                                    "gpt:layers=1,heads=2,width=32,dropout=0.1",
                                    "--batch",
                                    "2",
                                    "--seq",
                                    "16",
                                    "--steps",
                                    "40",
                                    "--checkpoint-steps",
                                    "1",
                                    "--keep",
                                    "2",
                                    "--eval-steps",
                                    "10",
                                    "--precision",
                                    "fp16-master",
                                    "--accumulate",
                                    "2"};
  };
  const auto begin = std::chrono::steady_clock::now();
  const Result undisturbed = run(command(dir / "whole"));
  REQUIRE_MESSAGE(undisturbed.code == 0, undisturbed.err);
  const auto length = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  const std::string whole = trace_of(dir / "whole");

  Generator random(static_cast<std::uint64_t>(wanted));
  int kills = 0, runs = 0;
  while (kills < wanted) {
    const std::string out = dir / ("run-" + std::to_string(runs++));
    for (;;) {
      auto arguments = command(out);
      if (fs::exists(fs::path(out) / "config.json")) arguments = {"train", "--out", out, "--resume"};
      const auto moment = std::chrono::milliseconds(1 + static_cast<std::int64_t>(random.below(static_cast<std::uint32_t>(length * 5 / 4))));
      const Result r = run(arguments, {.kill_after = kills < wanted ? std::optional(moment) : std::nullopt});
      if (r.code == 0) break;
      REQUIRE_MESSAGE(r.code == 1000 + SIGKILL, r.err);
      ++kills;
    }
    CHECK(trace_of(out) == whole);
    CHECK(litter(out) == std::vector<std::string>{});
    fs::remove_all(out);
  }
  MESSAGE(kills << " kills in " << runs << " runs of " << length << " ms");
}
