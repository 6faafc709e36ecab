// same_run.cpp - compares options, data and base, and names what differs.
#include "train/same_run.h"

#include <algorithm>

#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "train/options.h"

namespace mezzo::train {
namespace {

io::Json fingerprint(const io::Json& base) { return base.is_null() ? base : base.at("fingerprint"); }

}  // namespace

std::vector<std::string> require_same(const io::Json& before, const std::string& source, std::int64_t done, const PresentRun& now) try {
  const TrainOptions& options = now.options;
  const TrainOptions then = options_from_json(before.at("options"), source);
  const io::Json &precision = before.at("precision"), &config = now.config;
  auto differ = differences(then, options, done);
  const auto compare = [&](const char* what, const io::Json& a, const io::Json& b) {
    if (a != b) differ.push_back(fmt::format("{}: {} in the run, {} now", what, io::to_text(a), io::to_text(b)));
  };
  const History behind = history_of(before, source);  // what was done afterwards may have changed the recipe
  const io::Json mine = to_json(precision_of(in_force(options, behind), now.shape));
  compare("--precision", precision.at("recipe"), mine["recipe"]);
  compare("--loss-scale", precision.at("scaler"), mine["scaler"]);
  const auto known = static_cast<std::ptrdiff_t>(std::min(behind.size(), now.history.size()));
  compare("its history", to_json(behind), to_json({now.history.begin(), now.history.begin() + known}));
  compare("the base model (its fingerprint)", fingerprint(before.at("model").at("base")), fingerprint(config.at("model").at("base")));
  compare(options.tune ? "the examples (their fingerprint)" : "the text (its fingerprint)", before.at("data").at("fingerprint"),
          config.at("data").at("fingerprint"));
  if (!differ.empty())
    fail("resume", fmt::format("{} does not continue with these options: {}", options.out.native(), fmt::join(differ, "; ")),
         "give the run's own options, or begin a new run in another --out");

  std::vector<std::string> warnings;
  if (then.threads != options.threads)
    warnings.push_back(
        fmt::format("{} threads now, {} before: sums are taken in another order, so the run is not bit for bit what it would have been",
                    options.threads, then.threads));
  if (precision.at("isa") != mine["isa"])
    warnings.push_back(fmt::format("instruction set {} now, {} before: the run is not bit for bit what it would have been", io::to_text(mine["isa"]),
                                   io::to_text(precision.at("isa"))));
  return warnings;
} catch (const io::Json::exception& e) { fail("resume", fmt::format("{}: {}", source, io::plain_message(e.what()))); }

}  // namespace mezzo::train
