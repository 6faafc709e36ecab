// report.h - a page about one run or several: curves, loss scale, memory, the figures in tables. One HTML file that needs nothing else: no network,
// no script; light or dark as the reader's system; every figure's numbers stand in a table too.
#pragma once

#include <string>
#include <vector>

#include "cli/html.h"
#include "cli/record.h"
#include "train/events.h"
#include "train/numerics.h"

namespace mezzo::cli {

struct Report {
  std::string title;
  std::vector<std::string> lede;  // paragraphs under it
  std::vector<RunRecord> runs;
  std::vector<std::string> findings;                // paragraphs under the summary table
  bool ended = true;                                // the runs have summaries; otherwise it is one
  std::vector<train::Inspection> inspections = {};  // of a single run
  std::vector<train::Event> events = {};
  std::string sample_title, sample;  // text that a model made; empty: none
  Facts settings, machine;
};
std::string to_html(const Report&);

/// This machine and this program.
Facts machine_facts();
/// What a run was told, in words.
Facts setting_facts(const train::TrainOptions&, const models::ModelOptions&);
/// The page of one run directory, report.html in it.
void write_report(const std::filesystem::path& run_directory, const train::Trainer&, const train::TrainSummary&);

}  // namespace mezzo::cli
