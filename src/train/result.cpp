// result.cpp - the summary of a run as JSON, there and back.
#include "train/result.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/checkpoint.h"
#include "train/options.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

fs::path path_of(const fs::path& run) { return run / "result.json"; }

/// NaN and Inf are null in a file.
double number(const io::Json& j) { return j.is_null() ? std::nan("") : j.get<double>(); }

}  // namespace

io::Json to_json(const TrainSummary& s) {
  const auto measured = [&](io::Json value) { return s.steps_run > 0 ? std::move(value) : io::Json(nullptr); };
  return {{"status", s.status == RunStatus::finished ? "finished" : "interrupted"},
          {"step", s.step},
          {"skipped", s.skipped},
          {"rollbacks", s.rollbacks},
          {"val_loss", s.val_loss ? io::Json(*s.val_loss) : io::Json(nullptr)},
          {"best_step", s.best_step > 0 ? io::Json(s.best_step) : io::Json(nullptr)},
          {"best_val_loss", s.best_step > 0 ? io::Json(s.best_loss) : io::Json(nullptr)},
          {"steps_run", s.steps_run},
          {"train_loss", measured(s.train_loss)},
          {"scale", s.scale},
          {"zero_fraction", s.zero_fraction},
          {"step_ms_median", measured(s.step_ms_median)},
          {"tokens_per_second", measured(s.tokens_per_second)},
          {"tokens", s.tokens},
          {"peak_bytes", measured(s.peak_bytes)},
          {"bytes", measured(bytes_json(s.bytes))},
          {"checkpoint", s.checkpoint.empty() ? io::Json(nullptr) : io::Json(s.checkpoint.native())}};
}

void write_result(const fs::path& run, const TrainSummary& s) { io::write_json(path_of(run), to_json(s)); }

void remove_result(const fs::path& run) {
  std::error_code error;
  if (fs::remove(path_of(run), error); error) fail("run", fmt::format("{}: {}", path_of(run).native(), error.message()));
}

std::optional<TrainSummary> read_result(const fs::path& run) {
  const fs::path file = path_of(run);
  if (!present(file)) return std::nullopt;
  const io::Json j = io::read_json(file);
  try {
    TrainSummary s;
    s.step = j.at("step");
    s.skipped = j.at("skipped");
    s.rollbacks = j.at("rollbacks");
    if (const auto& loss = j.at("val_loss"); !loss.is_null()) s.val_loss = loss.get<double>();
    if (const auto& best = j.at("best_step"); !best.is_null()) s.best_step = best, s.best_loss = number(j.at("best_val_loss"));
    s.steps_run = j.at("steps_run");
    s.scale = j.at("scale");
    s.zero_fraction = number(j.at("zero_fraction"));
    s.tokens = j.at("tokens");
    s.checkpoint = checkpoint_path(run, s.step);
    if (s.steps_run == 0) return s;
    s.train_loss = number(j.at("train_loss"));
    s.step_ms_median = j.at("step_ms_median");
    s.tokens_per_second = j.at("tokens_per_second");
    s.peak_bytes = j.at("peak_bytes");
    for (std::size_t c = 0; c < kMemoryCategories; ++c) s.bytes[c] = j.at("bytes").at(std::string(name(static_cast<Memory>(c))));
    return s;
  } catch (const io::Json::exception& e) { fail("run", fmt::format("{}: {}", file.native(), io::plain_message(e.what()))); }
}

}  // namespace mezzo::train
