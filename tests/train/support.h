// support.h - a small text, a small model, and what a run has left behind.
#pragma once

#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include <mezzo/random.h>

#include "io/json.h"
#include "io/support.h"
#include "train/trainer.h"

namespace mezzo::test {

/// Sentences of a small vocabulary, drawn by chance: something a small model learns in tens of steps.
inline std::string small_text(std::size_t bytes) {
  const char* words[] = {"the", "cat", "sat", "on", "a", "mat", "and", "dogs", "ran", "far", "away", "home"};
  Generator random(7);
  std::string text;
  while (text.size() < bytes) {
    text += words[random.below(12)];
    text += random.below(8) == 0 ? ".\n" : " ";
  }
  return text;
}

inline std::filesystem::path write_small_text(const TempDir& dir, std::size_t bytes = 6000) {
  spit(dir / "text.txt", small_text(bytes));
  return dir / "text.txt";
}

inline train::TrainOptions small_run(const TempDir& dir, std::string_view out, std::string precision = "fp32") {
  train::TrainOptions o;
  o.data = dir / "text.txt";
  o.model = "gpt:layers=2,heads=2,width=32";
  o.out = dir / out;
  o.val_fraction = 0.1;
  o.seed = 3;
  o.batch = 2;
  o.seq = 16;
  o.steps = 8;
  o.lr = 3e-3;
  o.precision = std::move(precision);
  o.checkpoint_steps = 0;
  o.eval_steps = 0;
  o.threads = 1;
  return o;
}

inline train::TrainSummary run(const train::TrainOptions& o) { return train::Trainer(o).run(); }

/// The lines of a run's metrics, without what a clock decides.
inline std::vector<io::Json> metrics_of(const std::filesystem::path& run) {
  std::vector<io::Json> out;
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    out.push_back(io::Json::parse(line));
    out.back().erase("tokens_per_second");
  }
  return out;
}

}  // namespace mezzo::test
