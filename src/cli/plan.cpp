// plan.cpp - `mezzo plan`: what a training run will take, before anything of it is allocated: memory by category, time a step, disk.
#include <cmath>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/estimate.h"
#include "cli/format.h"
#include "cli/train_options.h"
#include "train/options.h"
#include "train/vocabulary.h"

namespace mezzo::cli {
namespace {

/// Bytes of one checkpoint: weights, masters and moments.
std::int64_t checkpoint_bytes(const train::MemoryPlan& p) {
  const auto of = [&](Memory m) { return p.bytes[static_cast<std::size_t>(m)]; };
  return of(Memory::weights) + of(Memory::masters) + of(Memory::optimizer);
}

class Plan final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("[options of mezzo train]");
    o.footer(
        "example: mezzo plan --model gpt2-124m --batch 4 --seq 256 --precision bf16\n--data may be left out; with it, the text is checked and its "
        "passes are counted.");
    declare_training(o, arguments_);
  }

  int run(Options& options, Console& console) override {
    complete(options, arguments_);
    auto& t = arguments_.options;
    const bool data = !t.data.empty(), out = !t.out.empty();
    models::ModelOptions shape;
    train::PrecisionPlan precision;
    checking_usage([&] {
      train::TrainOptions complete = t;  // a plan may leave open what a run needs
      if (!data) complete.data = ".";
      if (!out) complete.out = ".";
      train::check(complete);
      shape = train::resolve_model(t, train::vocab_of(t));
      precision = train::resolve({.precision = t.precision, .loss_scale = t.loss_scale, .width = static_cast<double>(models::width(shape))});
    });
    const train::MemoryPlan memory = train::plan_bytes(shape, t, precision);
    const std::int64_t have = cpu_info().memory, disk = checkpoint_bytes(memory);
    const double ms = estimate_step_ms(memory), tokens = static_cast<double>(train::tokens_of_step(t));
    std::optional<double> passes;
    if (data) {
      text::Documents documents(t.data);
      const auto tokenizer = train::make_tokenizer(t, documents);
      const text::Corpus corpus(std::move(documents), *tokenizer, {.seq = t.seq, .val_fraction = t.val_fraction});
      passes = tokens * static_cast<double>(t.steps) / static_cast<double>(corpus.train().size());
    }
    const std::int64_t kept =
        t.checkpoint_steps == 0 ? 1 : std::min<std::int64_t>((t.steps + t.checkpoint_steps - 1) / t.checkpoint_steps, t.keep == 0 ? t.steps : t.keep);
    const bool taken = out && !t.resume && std::filesystem::exists(t.out / "config.json");

    io::Json document{{"peak_bytes", memory.peak},
                      {"bytes", bytes_json(memory.bytes)},
                      {"step_ms", ms},
                      {"fits", memory.peak <= have},
                      {"memory_bytes", have},
                      {"tokens_per_second", 1e3 * tokens / ms},
                      {"run_seconds", 1e-3 * ms * static_cast<double>(t.steps)},
                      {"disk_bytes", kept * disk},
                      {"parameters", models::parameter_count(shape)},
                      {"model", models::to_spec(shape)},
                      {"precision", precision.recipe.name}};
    if (passes) document["passes"] = *passes;
    console.result(document);
    if (console.json()) return kSuccess;

    console.say(fmt::format("{:<10} {}: {} parameters", "model", models::to_spec(shape), format_count(models::parameter_count(shape))));
    console.say(train::to_string(precision));
    console.say(describe(memory));
    console.say(fmt::format("{:<10} {} of {}: {}", "memory", format_bytes(memory.peak), format_bytes(have),
                            memory.peak <= have ? "fits" : "does not fit; a smaller --batch with a larger --accumulate, or a smaller model"));
    console.say(fmt::format("{:<10} about {} ms a step, {} tokens/s, {} for {} steps", "time", format_ms(ms),
                            format_count(std::llround(1e3 * tokens / ms)), format_seconds(1e-3 * ms * static_cast<double>(t.steps)),
                            format_count(t.steps)));
    console.say(fmt::format("{:<10} {} for {} checkpoint{}", "disk", format_bytes(kept * disk), kept, kept == 1 ? "" : "s"));
    if (passes) console.say(fmt::format("{:<10} {:.2f} passes over the training text", "text", *passes));
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
