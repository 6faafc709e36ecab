// record.cpp - reads a run directory's files, and sums runs up in a table.
#include "cli/record.h"

#include <cmath>
#include <functional>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "train/checkpoint.h"
#include "train/step_lines.h"

namespace mezzo::cli {
namespace {

double number(const io::Json& j, const char* key, double absent) {
  const auto it = j.find(key);
  return it == j.end() ? absent : it->is_number() ? it->get<double>() : std::nan("");
}

}  // namespace

std::vector<StepRecord> read_steps(const std::filesystem::path& run_directory) {
  std::vector<StepRecord> steps;
  train::for_each_step_line(run_directory / "metrics.jsonl", [&](const io::Json& j) {
    const auto applied = j.find("applied");
    steps.push_back({.step = j["step"].get<std::int64_t>(),
                     .loss = number(j, "loss", std::nan("")),
                     .scale = number(j, "scale", 1),
                     .zero_fraction = number(j, "zero_fraction", std::nan("")),
                     .val_loss = number(j, "val_loss", std::nan("")),
                     .applied = applied == j.end() || !applied->is_boolean() || applied->get<bool>(),
                     .peak_bytes = static_cast<std::int64_t>(number(j, "peak_bytes", 0))});
  });
  return steps;
}

io::Json read_config(const std::filesystem::path& run_directory) {
  const auto file = run_directory / "config.json";
  return train::present(file) ? io::read_json(file) : io::Json();
}

Table summary_table(const std::vector<RunRecord>& runs) {
  std::vector<std::string> headings{""};
  for (const auto& r : runs) headings.push_back(r.about.empty() ? r.name : fmt::format("{}, {}", r.name, r.about));
  Table table(std::move(headings));
  const auto row = [&](std::string name, const std::function<std::string(const RunRecord&)>& cell) {
    std::vector<std::string> cells{std::move(name)};
    for (const auto& r : runs) cells.push_back(cell(r));
    table.row(std::move(cells));
  };
  row("validation loss", [](const RunRecord& r) {
    return !r.failure.empty() ? "failed" : r.summary.val_loss ? format_loss(*r.summary.val_loss) : "not taken";
  });
  row("steps skipped", [](const RunRecord& r) { return fmt::format("{} of {}", format_count(r.summary.skipped), format_count(r.summary.step)); });
  row("gradients lost to zero", [](const RunRecord& r) { return format_share(r.summary.zero_fraction); });
  const auto measured = [&](std::string name, const std::function<std::string(const RunRecord&)>& cell) {
    row(std::move(name), [&](const RunRecord& r) { return r.summary.steps_run > 0 ? cell(r) : "not measured"; });
  };
  measured("ms a step", [](const RunRecord& r) { return format_ms(r.summary.step_ms_median); });
  if (runs.size() > 1) {
    const double first = runs.front().summary.step_ms_median;
    row(fmt::format("speed against {}", runs.front().name),
        [first](const RunRecord& r) { return r.summary.step_ms_median > 0 ? fmt::format("{:.2f}x", first / r.summary.step_ms_median) : "-"; });
  }
  measured("memory at the peak", [](const RunRecord& r) { return format_bytes(r.summary.peak_bytes); });
  for (std::size_t c = 0; c < kMemoryCategories; ++c)
    measured(fmt::format("  {}", name(static_cast<Memory>(c))), [c](const RunRecord& r) { return format_bytes(r.summary.bytes[c]); });
  return table;
}

}  // namespace mezzo::cli
