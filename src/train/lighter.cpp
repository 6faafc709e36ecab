// lighter.cpp - tries changes one by one, plans each, and names those that help.
#include "train/lighter.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include "core/fail.h"
#include "train/options.h"

namespace mezzo::train {
namespace {

constexpr double kWorthwhile = 0.99;    // of the bytes before: what saves less is not worth naming
constexpr std::int64_t kShortest = 64;  // tokens of a window that is still a text
// How many times less weights, masters and moments can become: from f32 to bf16-sr; of a base, to 4 bits without moments. Beyond that nothing is
// tried.
constexpr std::int64_t kTrainedShrink = 4, kBaseShrink = 32;

std::string human(std::int64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  if (bytes < 100 << 10) return bytes < 1 << 10 ? fmt::format("{} bytes", bytes) : fmt::format("{:.1f} KiB", 1024 * mib);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

std::int64_t layers_of(const models::ModelOptions& m) {
  return std::visit([](const auto& o) { return static_cast<std::int64_t>(o.layers); }, m);
}

/// Ways to change one thing, the gentlest first; of these the first that fits is named, or the one that comes closest.
struct Change {
  bool same;
  std::vector<TrainOptions> ways;
};

std::vector<Change> changes(const TrainOptions& o, const models::ModelOptions& m) {
  std::vector<Change> all;
  const auto with = [&](auto&& set) {
    TrainOptions changed = o;
    set(changed);
    return changed;
  };
  const auto add = [&](bool same, std::vector<TrainOptions> ways) {
    if (!ways.empty()) all.push_back({same, std::move(ways)});
  };

  std::vector<TrainOptions> ways;
  const std::int64_t layers = layers_of(m), root = std::llround(std::sqrt(static_cast<double>(layers)));
  for (const std::int64_t n : {layers / 2, root, std::int64_t{2}, std::int64_t{1}})
    if (n >= 1 && o.checkpoint_every == 0) ways.push_back(with([&](TrainOptions& t) { t.checkpoint_every = static_cast<int>(n); }));
  add(true, std::move(ways));
  if (!o.fuse_optimizer) add(o.clip_norm == 0, {with([](TrainOptions& t) { t.fuse_optimizer = true, t.clip_norm = 0; })});
  if (o.resume) return all;

  ways = {};
  for (std::int64_t b = o.batch; b > 1;) {
    b = b % 2 == 0 ? b / 2 : 1;
    ways.push_back(with([&](TrainOptions& t) { t.batch = b, t.accumulate = static_cast<int>(o.batch / b * o.accumulate); }));
  }
  add(true, std::move(ways));
  const bool adapters = o.tune && !o.tune->full;
  if (adapters) {
    add(false, {with([](TrainOptions& t) { t.precision = "bf16"; })});
    ways = {};
    if (o.tune->quantize_base.empty())
      for (const char* format : {"q8_0", "nf4"}) ways.push_back(with([&](TrainOptions& t) { t.tune->quantize_base = format; }));
    add(false, std::move(ways));
  } else {
    for (const char* recipe : {"bf16-split", "bf16-sr"}) add(false, {with([&](TrainOptions& t) { t.precision = recipe; })});
    if (o.state_dtype.empty()) add(false, {with([](TrainOptions& t) { t.state_dtype = "u8"; })});
    if (o.tune) add(false, {with([](TrainOptions& t) { t.tune->full = false; })});
  }
  ways = {};
  for (std::int64_t t = o.seq / 2; t >= kShortest; t /= 2) ways.push_back(with([&](TrainOptions& c) { c.seq = t; }));
  add(false, std::move(ways));
  return all;
}

/// The bytes of a change, none where the options do not go together.
std::optional<std::int64_t> planned(TrainOptions o, const models::ModelOptions& m) {
  try {
    check(o);
    o.accumulate = std::min(o.accumulate, 2);                            // more micro-batches take no more memory, but longer to plan
    const auto shape = o.tune ? m : resolve_model(o, models::vocab(m));  // whose context may be the window's
    return plan_bytes(shape, o, precision_of(o, shape)).peak;
  } catch (const Error&) { return std::nullopt; }
}

/// What differs, as options and in words.
std::pair<std::string, std::string> described(const TrainOptions& from, const TrainOptions& to) {
  std::vector<std::string> options, effects;
  const auto differs = [&](bool is, std::string option, std::string effect = {}) {
    if (!is) return;
    options.push_back(std::move(option));
    if (!effect.empty()) effects.push_back(std::move(effect));
  };
  differs(to.batch != from.batch, fmt::format("--batch {} --accumulate {}", to.batch, to.accumulate), "the same step in smaller parts");
  differs(to.checkpoint_every != from.checkpoint_every, fmt::format("--checkpoint-every {}", to.checkpoint_every),
          "the same bits, blocks computed twice");
  differs(to.fuse_optimizer != from.fuse_optimizer, "--fuse-optimizer", to.clip_norm == from.clip_norm ? "the same bits" : "");
  differs(to.clip_norm != from.clip_norm, "--clip-norm 0", "gradients are not clipped");
  if (to.precision != from.precision)
    differs(true, fmt::format("--precision {}", to.precision),
            fmt::format("{:g} bytes a parameter with AdamW", recipe(to.precision).bytes_per_parameter));
  differs(to.state_dtype != from.state_dtype, fmt::format("--state-dtype {}", to.state_dtype), "moments in 8 bits");
  if (to.tune && from.tune) {
    differs(to.tune->full != from.tune->full, fmt::format("--lora-rank {} instead of --full", to.tune->lora.rank),
            "adapters are trained, not all weights");
    differs(to.tune->quantize_base != from.tune->quantize_base, fmt::format("--quantize-base {}", to.tune->quantize_base),
            "frozen weights are rounded into blocks");
  }
  differs(to.seq != from.seq, fmt::format("--seq {}", to.seq), "shorter windows");
  return {fmt::format("{}", fmt::join(options, " ")), fmt::format("{}", fmt::join(effects, "; "))};
}

struct Found {
  TrainOptions options;
  bool same;
  std::int64_t peak;
};

/// Of each change the way to be named, where it helps.
std::vector<Found> found(const TrainOptions& o, const models::ModelOptions& m, std::int64_t peak, std::int64_t memory) {
  std::vector<Found> out;
  for (const Change& c : changes(o, m)) {
    std::optional<Found> best;
    for (const auto& way : c.ways) {
      const auto bytes = planned(way, m);
      if (!bytes || (best && *bytes >= best->peak)) continue;
      best = Found{way, c.same, *bytes};
      if (*bytes <= memory) break;
    }
    if (best && static_cast<double>(best->peak) < kWorthwhile * static_cast<double>(peak)) out.push_back(*std::move(best));
  }
  return out;
}

}  // namespace

std::vector<Lighter> lighter(const TrainOptions& o, const models::ModelOptions& m, const MemoryPlan& plan, std::int64_t memory) {
  std::int64_t standing = 0;
  for (const Memory c : {Memory::weights, Memory::masters, Memory::optimizer}) standing += plan.bytes[static_cast<std::size_t>(c)];
  if (standing / (o.tune ? kBaseShrink : kTrainedShrink) > memory) return {};
  const std::int64_t peak = plan.peak;
  std::vector<Lighter> out;
  const auto name = [&](const Found& f) {
    const auto [options, effect] = described(o, f.options);
    out.push_back({options, effect, f.same, f.options, f.peak, f.peak <= memory});
  };
  std::vector<Found> single = found(o, m, peak, memory);
  for (const Found& f : single) name(f);
  if (std::none_of(out.begin(), out.end(), [](const Lighter& l) { return l.fits; })) {
    // One on top of the other: what leaves the training as it is first, shorter windows last.
    Found all{o, true, peak};
    for (auto next = std::move(single); !next.empty() && all.peak > memory; next = found(all.options, m, all.peak, memory)) {
      const auto order = [&](const Found& f) { return std::tuple(!f.same, f.options.seq != all.options.seq, f.peak); };
      Found best = *std::min_element(next.begin(), next.end(), [&](const Found& a, const Found& b) { return order(a) < order(b); });
      best.same = best.same && all.same;
      all = std::move(best);
    }
    if (all.peak <= memory) name(all);
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Lighter& a, const Lighter& b) { return std::tuple(!a.fits, !a.same, a.peak) < std::tuple(!b.fits, !b.same, b.peak); });
  return out;
}

std::int64_t memory_of(const TrainOptions& o) {
  return o.memory > 0 ? static_cast<std::int64_t>(o.memory * (std::int64_t{1} << 30)) : cpu_info().memory;
}

std::string too_large(const MemoryPlan& plan, const TrainOptions& o) {
  const std::int64_t memory = memory_of(o);
  if (o.overcommit || plan.peak <= memory) return {};
  return fmt::format("it needs {}, and {} {}", human(plan.peak), o.memory > 0 ? "--memory allows" : "this machine has", human(memory));
}

std::string refuse_too_large(const MemoryPlan& plan, const TrainOptions& o, const models::ModelOptions& m) {
  const std::int64_t memory = memory_of(o);
  if (plan.peak <= memory) return {};
  std::string parts;
  for (std::size_t c = 0; c < kMemoryCategories; ++c)
    if (plan.bytes[c] > plan.peak / 100)
      parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", name(static_cast<Memory>(c)), human(plan.bytes[c]));
  std::string what =
      fmt::format("this run needs {} ({}), and {} {}", human(plan.peak), parts, o.memory > 0 ? "--memory allows" : "this machine has", human(memory));
  if (o.overcommit) return what + "; --overcommit lets it begin: it will swap, or the system will end it";
  const auto helps = lighter(o, m, plan, memory);
  fail("train", std::move(what),
       !helps.empty() && helps.front().fits ? fmt::format("{} takes {}; `mezzo plan` lists what else helps, --overcommit begins all the same",
                                                          helps.front().options, human(helps.front().peak))
                                            : std::string("a smaller model; --overcommit begins all the same"));
}

}  // namespace mezzo::train
