// inspect.cpp - `mezzo inspect`: the numerics of a run, from what `--inspect` wrote down while it trained.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/numerics_page.h"
#include "cli/options.h"
#include "cli/record.h"
#include "cli/report.h"
#include "core/fail.h"
#include "io/file.h"
#include "train/checkpoint.h"
#include "train/events.h"

namespace mezzo::cli {
namespace {

io::Json rows_json(const Table& t) {
  io::Json out = io::Json::array();
  for (std::size_t r = 1; r < t.rows().size(); ++r) {
    io::Json row;
    row["place"] = t.rows()[r][0];
    for (std::size_t c = 1; c < t.rows()[r].size(); ++c) {
      std::string key = t.rows()[0][c];
      std::replace(key.begin(), key.end(), ' ', '_');
      row[key] = t.rows()[r][c];
    }
    out.push_back(std::move(row));
  }
  return out;
}

class Inspect final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("RUN_DIR [--step N] [--top N]");
    o.footer(
        "Reads what `mezzo train --inspect every=N` wrote: ranges of weights, activations and gradients, what other formats would make of them,\n"
        "updates that changed nothing; and the run's events. Writes inspect.html into the run directory.");
    o.group("what is shown");
    o.positional("RUN_DIR", run_, "A run directory of mezzo train or finetune");
    o.value("--step", "N", step_, "That inspection alone; without it the worst of all");
    o.value("--top", "N", top_, "Rows of each table");
  }

  int run(Options& options, Console& console) override {
    checking_usage([&] {
      options.require("RUN_DIR", "a run directory");
      if (top_ < 1) fail("inspect", fmt::format("--top {} given, 1 or more wanted", top_));
    });
    if (!train::present(run_ / "config.json"))
      fail("inspect", fmt::format("{}: not a run directory (it has no config.json)", run_.native()), "give the --out of a run");
    auto inspections = train::read_inspections(run_);
    const auto events = train::read_events(run_);
    if (inspections.empty() && events.empty())
      fail("inspect", fmt::format("{}: nothing was inspected", run_.native()), "train with --inspect every=100");
    if (step_) select(inspections);

    const RunRecord record{
        .name = run_.filename().native(), .about = {}, .steps = read_steps(run_), .summary = {}, .failure = {}, .config = read_config(run_)};
    const auto page = run_ / "inspect.html";
    io::write_file(page,
                   to_html({.title = fmt::format("mezzo inspect: {}", record.name),
                            .lede = {fmt::format("{} steps of {}.", format_count(record.steps.empty() ? 0 : record.steps.back().step), record.name)},
                            .runs = {record},
                            .findings = {},
                            .ended = false,
                            .inspections = inspections,
                            .events = events,
                            .sample_title = {},
                            .sample = {},
                            .settings = {},
                            .machine = machine_facts()}));
    const auto rows = static_cast<std::size_t>(top_);
    io::Json document{{"run", run_.native()}, {"page", page.native()}, {"steps", io::Json::array()}};
    for (const auto& i : inspections) document["steps"].push_back(i.step);
    document["loss"] = last_of(record.steps, &StepRecord::loss);
    document["val_loss"] = last_of(record.steps, &StepRecord::val_loss);
    document["scale"] = last_of(record.steps, &StepRecord::scale);
    document["skipped"] = io::Json::array();
    std::int64_t largest = 0;
    for (const auto& s : record.steps) {
      if (!s.applied) document["skipped"].push_back(s.step);
      largest = std::max(largest, s.peak_bytes);
    }
    document["peak_bytes"] = largest;
    if (record.config.contains("planned_bytes_by_category")) document["planned_bytes"] = record.config["planned_bytes_by_category"];
    document["precision"] = record.config.value("precision", io::Json());
    document["least_headroom"] = rows_json(least_headroom(inspections, rows));
    document["most_underflow"] = rows_json(most_underflow(inspections, rows));
    document["most_stalled"] = rows_json(most_stalled(inspections, rows));
    document["events"] = io::Json::array();
    for (const auto& e : events) document["events"].push_back(train::to_json(e));
    document["inspections"] = io::Json::array();
    for (const auto& i : inspections) document["inspections"].push_back(train::to_json(i));
    console.result(document);
    if (console.json()) return kSuccess;

    for (const auto& table :
         {least_headroom(inspections, rows), most_underflow(inspections, rows), most_stalled(inspections, rows), format_table(inspections)})
      if (table.rows().size() > 1) console.say(table.text() + "\n");
    for (const auto& e : last(events, rows)) console.say(fmt::format("step {:<8} {}", format_count(e.step), e.text));
    console.say(fmt::format("{}page       {}", events.empty() ? "" : "\n", page.native()));
    return kSuccess;
  }

 private:
  void select(std::vector<train::Inspection>& inspections) const {
    std::vector<std::int64_t> steps;
    for (const auto& i : inspections) steps.push_back(i.step);
    std::erase_if(inspections, [&](const train::Inspection& i) { return i.step != *step_; });
    if (inspections.empty()) fail("inspect", fmt::format("--step {} given; inspected were the steps {}", *step_, fmt::join(steps, ", ")));
  }
  /// The newest value that is one; null without any.
  static io::Json last_of(const std::vector<StepRecord>& steps, double StepRecord::*figure) {
    const auto s = std::find_if(steps.rbegin(), steps.rend(), [&](const StepRecord& r) { return std::isfinite(r.*figure); });
    return s == steps.rend() ? io::Json() : io::Json((*s).*figure);
  }
  static std::vector<train::Event> last(const std::vector<train::Event>& events, std::size_t n) {
    return {events.end() - static_cast<std::ptrdiff_t>(std::min(n, events.size())), events.end()};
  }

  std::filesystem::path run_;
  std::optional<std::int64_t> step_;
  std::int64_t top_ = 10;
};

}  // namespace

const Command kInspect{"inspect", "Shows the numerics of a run: ranges, underflow, overflow, stalled updates",
                       [] { return std::unique_ptr<Task>(std::make_unique<Inspect>()); }};

}  // namespace mezzo::cli
