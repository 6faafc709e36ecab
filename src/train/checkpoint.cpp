// checkpoint.cpp - checkpoints written, verified, read, removed.
#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>

#include <nlohmann/json.hpp>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "nn/state.h"
#include "train/recipe_change.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;
using io::Json;

constexpr const char* kOp = "checkpoint";
constexpr const char *kWeights = "weights.safetensors", *kOptimizer = "optimizer.safetensors", *kState = "state.json", *kManifest = "manifest.json";
constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kRemoved = ".removed-";  // a checkpoint that is being removed has this name before its first file goes

std::string hex(std::uint64_t x) { return fmt::format("{:016x}", x); }

std::optional<std::int64_t> step_of(const fs::path& directory) {
  const std::string name = directory.filename().native();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  std::int64_t step = 0;
  const char *first = name.data() + kPrefix.size(), *last = name.data() + name.size();
  const auto [end, error] = std::from_chars(first, last, step);
  return error == std::errc() && end == last && step >= 0 ? std::optional(step) : std::nullopt;
}

/// The tensors themselves, not copies.
Json write_tensors(const fs::path& path, const StateDict& tensors) {
  std::vector<io::TensorEntry> entries;
  std::vector<Tensor> holders;  // of what is not contiguous
  for (const auto& [name, t] : tensors) {
    const Tensor flat = t.contiguous();
    holders.push_back(flat);
    const auto bytes = static_cast<std::size_t>(flat.numel()) * size_of(flat.dtype());
    entries.push_back({name, flat.dtype(), {flat.shape().begin(), flat.shape().end()}, {static_cast<const std::byte*>(data(flat)), bytes}});
  }
  const io::WrittenFile written = io::write_safetensors(path, entries);
  return {{"bytes", written.bytes}, {"xxh3", hex(written.checksum)}};
}

Json write_text(const fs::path& path, const Json& j) {
  const std::string text = io::to_text(j, true) + '\n';
  io::write_file(path, text);
  return {{"bytes", text.size()}, {"xxh3", hex(io::checksum64(io::as_bytes(text)))}};
}

Json to_json(const amp::GradScalerState& s) {
  return {{"scale", s.scale},
          {"growth_factor", s.growth_factor},
          {"backoff_factor", s.backoff_factor},
          {"growth_interval", s.growth_interval},
          {"growth_tracker", s.growth_tracker},
          {"hysteresis_tracker", s.hysteresis_tracker},
          {"consecutive_skips", s.consecutive_skips},
          {"min_scale", s.min_scale},
          {"max_scale", s.max_scale},
          {"hysteresis", s.hysteresis},
          {"max_consecutive_skips", s.max_consecutive_skips},
          {"dynamic", s.dynamic}};
}

amp::GradScalerState scaler_state(const Json& j) {
  amp::GradScalerState s;
  j.at("scale").get_to(s.scale);
  j.at("growth_factor").get_to(s.growth_factor);
  j.at("backoff_factor").get_to(s.backoff_factor);
  j.at("growth_interval").get_to(s.growth_interval);
  j.at("growth_tracker").get_to(s.growth_tracker);
  j.at("hysteresis_tracker").get_to(s.hysteresis_tracker);
  j.at("consecutive_skips").get_to(s.consecutive_skips);
  j.at("min_scale").get_to(s.min_scale);
  j.at("max_scale").get_to(s.max_scale);
  j.at("hysteresis").get_to(s.hysteresis);
  j.at("max_consecutive_skips").get_to(s.max_consecutive_skips);
  j.at("dynamic").get_to(s.dynamic);
  return s;
}

Json to_json(const RunState& s) {
  return {{"step", s.step},
          {"skipped", s.skipped},
          {"position", s.position},
          {"tokens", s.tokens},
          {"generator", {{"seed", s.seed}, {"counter", s.counter}}},
          {"zero_sum", s.zero_sum},
          {"skips_in_a_row", s.skips_in_a_row},
          {"best", {{"step", s.best_step}, {"loss", s.best_loss}, {"evaluations_since", s.evaluations_since_best}}},
          {"trend",
           {{"recent", s.trend.recent},
            {"rise", s.trend.rise},
            {"lowest", s.trend.lowest},
            {"reach", s.trend.reach},
            {"last_ordinary", s.trend.last_ordinary},
            {"last_low", s.trend.last_low},
            {"not_finite", s.trend.not_finite}}},
          {"scaler", s.scaler ? to_json(*s.scaler) : Json(nullptr)}};
}

RunState run_state(const Json& j) {
  RunState s;
  j.at("step").get_to(s.step);
  j.at("skipped").get_to(s.skipped);
  j.at("position").get_to(s.position);
  j.at("tokens").get_to(s.tokens);
  j.at("generator").at("seed").get_to(s.seed);
  j.at("generator").at("counter").get_to(s.counter);
  j.at("zero_sum").get_to(s.zero_sum);
  j.at("skips_in_a_row").get_to(s.skips_in_a_row);
  j.at("best").at("step").get_to(s.best_step);
  j.at("best").at("loss").get_to(s.best_loss);
  j.at("best").at("evaluations_since").get_to(s.evaluations_since_best);
  const Json& trend = j.at("trend");
  trend.at("recent").get_to(s.trend.recent);
  trend.at("rise").get_to(s.trend.rise);
  trend.at("lowest").get_to(s.trend.lowest);
  trend.at("reach").get_to(s.trend.reach);
  trend.at("last_low").get_to(s.trend.last_low);
  trend.at("last_ordinary").get_to(s.trend.last_ordinary);
  trend.at("not_finite").get_to(s.trend.not_finite);
  if (const Json& scaler = j.at("scaler"); !scaler.is_null()) s.scaler = scaler_state(scaler);
  return s;
}

Json to_json(const optim::OptimizerState& s) {
  Json groups = Json::array();
  for (const auto& [lr, weight_decay] : s.groups) groups.push_back({{"lr", lr}, {"weight_decay", weight_decay}});
  return {{"kind", s.kind}, {"step", s.step}, {"seed", s.seed}, {"groups", std::move(groups)}, {"parameters", s.names}};
}

optim::OptimizerState optimizer_state(const Json& j) {
  optim::OptimizerState s;
  j.at("kind").get_to(s.kind);
  j.at("step").get_to(s.step);
  j.at("seed").get_to(s.seed);
  for (const auto& g : j.at("groups")) s.groups.emplace_back(g.at("lr").get<double>(), g.at("weight_decay").get<double>());
  j.at("parameters").get_to(s.names);
  return s;
}

/// f of a file's JSON; an entry that is missing or of another type is an Error with the file's name.
template <class F> auto reading(const fs::path& file, F&& f) {
  const Json j = io::read_json(file);
  try {
    return f(j);
  } catch (const Json::exception& e) { fail(kOp, fmt::format("{}: {}", file.native(), io::plain_message(e.what()))); }
}

/// What an Error says, for the middle of another's: without "[op] " before it and the full stop behind it.
std::string within(std::string_view what) {
  if (const auto end = what.find("] "); what.starts_with('[') && end != what.npos) what.remove_prefix(end + 2);
  if (what.ends_with('.')) what.remove_suffix(1);
  return std::string(what);
}

/// What is wrong with a checkpoint; empty: nothing.
std::string damage(const fs::path& checkpoint) {
  try {
    const Json files = reading(checkpoint / kManifest, [](const Json& j) { return j.at("files"); });
    for (const char* name : {kWeights, kOptimizer, kState}) {
      const fs::path path = checkpoint / name;
      const io::MappedFile file(path, io::Access::sequential);
      const auto bytes = files.at(name).at("bytes").get<std::uint64_t>();
      if (file.bytes().size() != bytes) return fmt::format("{} has {} bytes, {} were written", path.native(), file.bytes().size(), bytes);
      if (hex(io::checksum64(file.bytes())) != files.at(name).at("xxh3").get<std::string>())
        return fmt::format("{} was altered since it was written: its checksum differs", path.native());
    }
    return {};
  } catch (const Json::exception& e) {
    return fmt::format("{}: {}", (checkpoint / kManifest).native(), io::plain_message(e.what()));
  } catch (const Error& e) { return within(e.what()); }
}

void discard(const fs::path& checkpoint) {
  const fs::path doomed = checkpoint.parent_path() / fmt::format("{}{}", kRemoved, checkpoint.filename().native());
  std::error_code ignored;  // what stays behind goes with the next run
  fs::rename(checkpoint, doomed, ignored);
  fs::remove_all(doomed, ignored);
}

}  // namespace

fs::path checkpoint_path(const fs::path& run, std::int64_t step) { return run / "checkpoints" / fmt::format("{}{}", kPrefix, step); }

std::vector<std::int64_t> checkpoint_steps(const fs::path& run) {
  std::vector<std::int64_t> steps;
  std::error_code none;
  for (fs::directory_iterator it(run / "checkpoints", none), end; it != end; ++it)
    if (const auto step = step_of(it->path()); step && it->is_directory()) steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

// ---- writing -------------------------------------------------------------------------------------

void write_checkpoint(const fs::path& run, const RunState& state, const StateDict& weights, const optim::Optimizer& optimizer,
                      const Json& run_config) {
  const GradMode off(false);
  io::make_directory(run / "checkpoints", kOp);
  io::AtomicDirectory directory(checkpoint_path(run, state.step));
  const optim::OptimizerState optimizer_state = optimizer.state_view();
  Json files;
  files[kWeights] = write_tensors(directory.path() / kWeights, weights);
  files[kOptimizer] = write_tensors(directory.path() / kOptimizer, optimizer_state.tensors);
  files[kState] = write_text(directory.path() / kState, {{"run", to_json(state)}, {"optimizer", to_json(optimizer_state)}, {"config", run_config}});
  io::write_json(directory.path() / kManifest, {{"files", std::move(files)}});
  directory.commit();
}

// ---- reading -------------------------------------------------------------------------------------

void verify_checkpoint(const fs::path& checkpoint) {
  const std::string wrong = damage(checkpoint);
  if (wrong.empty()) return;
  const fs::path run = checkpoint.parent_path().parent_path();
  std::string hint = "no older checkpoint is whole: begin again in another directory";
  const auto step = step_of(checkpoint);
  auto steps = step ? checkpoint_steps(run) : std::vector<std::int64_t>();
  for (auto older = steps.rbegin(); older != steps.rend(); ++older)
    if (*older < *step && damage(checkpoint_path(run, *older)).empty()) {
      hint = fmt::format("{} is whole: resume from it with --resume-step {}", checkpoint_path(run, *older).native(), *older);
      break;
    }
  fail(kOp, wrong, hint);
}

bool is_whole(const fs::path& checkpoint) { return damage(checkpoint).empty(); }

Json checkpoint_config(const fs::path& checkpoint) {
  return reading(checkpoint / kState, [](const Json& j) { return j.at("config"); });
}

void read_weights(const fs::path& checkpoint, const StateDict& weights) {
  const MemoryScope scope(Memory::data);
  nn::load_state(weights, load(checkpoint / kWeights));
}

RunState read_checkpoint(const fs::path& checkpoint, const StateDict& weights, optim::Optimizer& optimizer, bool other_recipe) {
  verify_checkpoint(checkpoint);
  read_weights(checkpoint, weights);
  const auto read = [&](const Json& j) { return std::pair(run_state(j.at("run")), optimizer_state(j.at("optimizer"))); };
  auto [state, of_optimizer] = reading(checkpoint / kState, read);
  {
    const MemoryScope scope(Memory::data);
    of_optimizer.tensors = load(checkpoint / kOptimizer);
  }
  if (other_recipe) carry_over(of_optimizer, optimizer);
  optimizer.load_state(of_optimizer);
  return state;
}

// ---- removing ------------------------------------------------------------------------------------

void keep_newest(const fs::path& run, int keep, const std::vector<std::int64_t>& also) {
  const auto steps = checkpoint_steps(run);
  for (std::size_t i = 0; keep > 0 && i + static_cast<std::size_t>(keep) < steps.size(); ++i)
    if (std::find(also.begin(), also.end(), steps[i]) == also.end()) discard(checkpoint_path(run, steps[i]));
}

void remove_after(const fs::path& run, std::int64_t step) {
  for (const auto s : checkpoint_steps(run))
    if (s > step) discard(checkpoint_path(run, s));
}

void clean_checkpoints(const fs::path& run) {
  std::error_code ignored;
  const fs::path directory = run / "checkpoints";
  if (!fs::is_directory(directory, ignored)) return;
  io::clean_stale(directory);
  std::vector<fs::path> removed;
  for (fs::directory_iterator it(directory, ignored), end; it != end; ++it)
    if (it->path().filename().native().starts_with(kRemoved)) removed.push_back(it->path());
  for (const auto& p : removed) fs::remove_all(p, ignored);
}

}  // namespace mezzo::train
