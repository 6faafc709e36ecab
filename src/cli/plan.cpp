// plan.cpp - `mezzo plan`: what a training run will take, before anything of it is allocated: memory by category, time a step, disk.
#include <algorithm>
#include <cmath>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/estimate.h"
#include "cli/format.h"
#include "cli/train_options.h"
#include "train/lighter.h"
#include "train/options.h"

namespace mezzo::cli {
namespace {

/// Tokens of a step, padding not counted: the mean over its first pass.
double mean_tokens(train::Workload& work, std::int64_t steps) {
  const std::int64_t n = std::clamp<std::int64_t>(steps, 1, std::max<std::int64_t>(1, work.steps_of(1)));
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += work.next_step();
  return static_cast<double>(sum) / static_cast<double>(n);
}

class Plan final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("[options of mezzo train or finetune]");
    o.footer(
        "example: mezzo plan --model gpt2-124m --batch 4 --seq 256 --precision bf16\n--data may be left out; with it, the text is checked and its "
        "passes are counted. When it does not fit, what would make it fit is planned too. --memory says for which machine.");
    declare_either(o, arguments_);
  }

  int run(Options& options, Console& console) override {
    cli::complete(options, arguments_, RunKind::either);
    auto& t = arguments_.options;
    if (options.given("--epochs") && t.data.empty()) throw UsageError("[plan] --epochs given without --data, with which it goes");
    const bool out = !t.out.empty();
    const auto resolve = [&] {
      const auto shape = train::shape_of(t);
      train::choose_seq(t, shape);
      return std::pair(shape, train::precision_of(t, shape));
    };
    const auto complete = [&] {  // a plan may leave open what a run needs
      train::TrainOptions o = t;
      if (t.data.empty()) o.data = ".";
      if (!out) o.out = ".";
      return o;
    };
    checking_usage([&] {
      train::check(complete());
      if (!t.tune) resolve();  // the command line alone decides
    });
    const auto [shape, precision] = resolve();
    const train::MemoryPlan memory = train::plan_bytes(shape, t, precision);
    std::optional<double> passes;
    auto tokens = static_cast<double>(train::tokens_of_step(t));  // all that there is room for; of data that is known, those that are there
    if (!t.data.empty()) {
      const auto data = train::read_data(t, shape);
      train::resolve_steps(t, *data.work);
      passes = data.work->passes_of(t.steps);
      tokens = mean_tokens(*data.work, t.steps);
    }
    const bool known = t.steps > 0;  // epochs of data that was not named
    const std::int64_t have = train::memory_of(t);
    const bool fits = memory.peak <= have;
    const auto helps = fits ? std::vector<train::Lighter>() : train::lighter(complete(), shape, memory, have);
    const StepTime time = estimate_step(memory, shape, t, precision);
    const double ms = time.ms();
    const std::int64_t each = t.checkpoint_steps, most = t.keep == 0 && known ? t.steps : std::max(t.keep, 1);
    const std::int64_t kept = each == 0 ? 1 : known ? std::min((t.steps + each - 1) / each, most) : most;
    const std::int64_t disk = kept * memory.checkpoint;
    const bool taken = out && !t.resume && std::filesystem::exists(t.out / "config.json");

    io::Json document{{"peak_bytes", memory.peak},
                      {"bytes", train::bytes_json(memory.bytes)},
                      {"step_ms", ms},
                      {"parts", {{"products", time.products}, {"attention", time.attention}, {"optimizer", time.optimizer}, {"memory", time.memory}}},
                      {"tried", time.tried},
                      {"fits", fits},
                      {"memory_bytes", have},
                      {"tokens_per_second", 1e3 * tokens / ms},
                      {"disk_bytes", disk},
                      {"parameters", models::parameter_count(shape)},
                      {"model", models::to_spec(shape)},
                      {"precision", precision.recipe.name}};
    std::optional<std::int64_t> saved;
    if (t.fuse_optimizer) {
      train::TrainOptions apart = t;
      apart.fuse_optimizer = false;
      saved = train::plan_bytes(shape, apart, precision).peak - memory.peak;
      document["fused_saves_bytes"] = *saved;
    }
    if (known) document["steps"] = t.steps, document["run_seconds"] = 1e-3 * ms * static_cast<double>(t.steps);
    if (passes) document["passes"] = *passes;
    document["suggestions"] = io::Json::array();
    for (const auto& l : helps)
      document["suggestions"].push_back(
          {{"options", l.options}, {"peak_bytes", l.peak}, {"fits", l.fits}, {"same_training", l.same}, {"effect", l.effect}});
    console.result(document);
    if (console.json()) return kSuccess;

    console.say(fmt::format("{:<10} {}: {} parameters", "model", models::to_spec(shape), format_count(models::parameter_count(shape))));
    console.say(train::to_string(precision));
    console.say(describe(memory));
    console.say(fmt::format("{:<10} {} of {}: {}", "memory", format_bytes(memory.peak), format_bytes(have),
                            fits                 ? "fits"
                            : helps.empty()      ? "does not fit; a smaller model is wanted"
                            : helps.front().fits ? "does not fit; with one of these changes, each planned, it would take"
                                                 : "does not fit, nor does it with these changes; a smaller model is wanted"));
    if (!helps.empty()) {
      std::size_t widest = 0;
      for (const auto& l : helps) widest = std::max(widest, l.options.size());
      for (const auto& l : helps)
        console.say(fmt::format("  {:<{}}  {:>9}  {:<8}  {}", l.options, widest, format_bytes(l.peak), l.fits ? "fits" : "too much", l.effect));
    }
    const auto share = [&](double part) { return format_share(part / ms); };
    if (saved) console.say(fmt::format("{:<10} {} less at the peak than with the optimizer after backward", "fused", format_bytes(*saved)));
    console.say(fmt::format(
        "{:<10} about {} ms a step, {} tokens/s{}", "time", format_ms(ms), format_count(std::llround(1e3 * tokens / ms)),
        known ? fmt::format(", {} for {} steps", format_seconds(1e-3 * ms * static_cast<double>(t.steps)), format_count(t.steps)) : std::string()));
    console.say(fmt::format("{:<10} products {}, attention {}, optimizer {}, the rest {}{}", "", share(time.products), share(time.attention),
                            share(time.optimizer), share(time.memory), time.tried ? ": steps so small were run" : ""));
    console.say(fmt::format("{:<10} {} for {} checkpoint{}", "disk", format_bytes(disk), kept, kept == 1 ? "" : "s"));
    if (passes) console.say(fmt::format("{:<10} {:.2f} passes over the {}", "data", *passes, t.tune ? "examples" : "training text"));
    if (t.global_batch > 0)
      console.say(fmt::format("{:<10} the mean over {} tokens, of which a step runs {}", "loss", format_count(t.global_batch),
                              format_count(train::tokens_of_step(t))));
    if (taken) console.say(fmt::format("{:<10} {} already holds a run: --resume continues it", "out", t.out.native()));
    return kSuccess;
  }

 private:
  TrainingArguments arguments_;
};

}  // namespace

const Command kPlan{"plan", "Says what a training run will take, before anything is allocated",
                    [] { return std::unique_ptr<Task>(std::make_unique<Plan>()); }};

}  // namespace mezzo::cli
