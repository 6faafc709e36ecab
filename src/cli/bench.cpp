// bench.cpp - `mezzo bench`: whole training steps on synthetic tokens, timed: speed, share of the machine's peak, memory, time by part.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <string>

#include <fmt/ranges.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <mezzo/models.h>
#include <mezzo/random.h>
#include <mezzo/train.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/measure.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "core/allocator.h"
#include "core/fail.h"
#include "core/parts.h"
#include "train/options.h"

namespace mezzo::cli {
namespace {

constexpr std::int64_t kWarmup = 2;   // steps: the first touch of memory is up to twelve times slower
constexpr std::int64_t kSettled = 3;  // steps after which a step asks the system for nothing
constexpr double kPeakBudget = 0.4;   // seconds

std::int64_t minor_faults() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}
std::int64_t peak_rss() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::int64_t>(usage.ru_maxrss) * 1024;
}

/// Of this process, resident and backed by no file; 0 where the system does not say.
std::int64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == "RssAnon:") {
      std::int64_t kib = 0;
      status >> kib;
      return 1024 * kib;
    }
  return 0;
}

double median(std::vector<double> x) {
  const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
  std::nth_element(x.begin(), middle, x.end());
  return *middle;
}

/// Random tokens (B, T) of [0, vocab).
Tensor random_tokens(std::int64_t batch, std::int64_t seq, std::int64_t vocab, Generator& random) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(batch * seq));
  for (auto& id : ids) id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  const MemoryScope scope(Memory::data);
  return from_span(std::span<const std::int32_t>(ids), {batch, seq});
}

struct Sample {
  double ms = 0;
  PartClock::Seconds parts{};
  std::int64_t faults = 0, mappings = 0;
};

class Bench final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("[--model SPEC] [--batch B] [--seq T] [--precision P] [--steps N]");
    o.footer("example: mezzo bench --model gpt:layers=6,heads=6,width=384,vocab=65 --batch 12 --seq 256 --precision bf16 --steps 20");
    o.group("what is timed");
    o.value("--model", "SPEC", model_,
            "gpt:layers=,heads=,width=[,vocab=][,context=][,dropout=], llama:... (and kv_heads=, ffn=), gpt2-124m or smollm2-135m");
    o.value("--batch", "B", batch_, "Sequences of a step");
    o.value("--seq", "T", seq_, "Tokens of a sequence");
    o.value("--precision", "P", precision_, fmt::format("auto, {}", fmt::join(train::recipe_names(), ", ")));
    o.flag("--fuse-optimizer", fuse_optimizer_, "Updates each weight and frees its gradient as soon as backward has it");
    o.value("--steps", "N", steps_, fmt::format("Timed steps, after {} that warm up", kWarmup));
    o.value("--seed", "S", seed_, "Of weights and tokens");
  }

  int run(Options&, Console& console) override {
    const auto [shape, plan] = checking_usage([&] { return checked(); });
    refuse_what_does_not_fit(shape, plan);
    catch_interrupts("mezzo bench: stopping after this step");
    for (const auto& w : plan.warnings) console.note(fmt::format("warning: {}", w));

    start_anonymous_ = anonymous_bytes();
    manual_seed(seed_);
    const auto model = models::make_model(shape);
    optim::AdamWOptions adamw{.lr = 3e-4, .storage = plan.recipe.storage};
    if (is_16bit(plan.recipe.low)) adamw.low = plan.recipe.low;
    optim::AdamW optimizer(model->named_parameters(), adamw);
    train::Step step(optimizer, {.recipe = plan.recipe.name, .scaler = plan.scaler, .fuse_optimizer = fuse_optimizer_});
    release_cached_memory();  // what weights were before they took the recipe's form, as Trainer does
    Generator random(seed_);
    const Tensor x = random_tokens(batch_, seq_, models::vocab(shape), random), y = random_tokens(batch_, seq_, models::vocab(shape), random);

    std::vector<Sample> samples;
    double loss = 0;
    {
      ProgressLine progress;
      const auto begin = std::chrono::steady_clock::now();
      for (std::int64_t i = 0; i < kWarmup + steps_ && !interrupted(); ++i) {
        if (i == kWarmup) reset_peak_memory();
        Sample s;
        const std::int64_t faults = minor_faults(), mappings = system_mappings();
        const auto start = std::chrono::steady_clock::now();
        PartClock::start();
        loss = step([&](int) { return model->loss(x, y); }).loss;
        s.parts = PartClock::stop();
        s.ms = 1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        s.faults = minor_faults() - faults;
        s.mappings = system_mappings() - mappings;
        if (i >= kWarmup) samples.push_back(s);
        progress.update(describe_share("step", i + 1, kWarmup + steps_, begin));
      }
    }
    if (interrupted()) return interrupted_code();
    report(console, shape, plan, samples, loss);
    return kSuccess;
  }

 private:
  struct Checked {
    models::ModelOptions shape;
    train::PrecisionPlan plan;
  };
  Checked checked() {
    const auto positive = [](const char* name, std::int64_t n) {
      if (n < 1) fail("bench", fmt::format("{} {} given, 1 or more wanted", name, n));
    };
    positive("--batch", batch_);
    positive("--seq", seq_);
    positive("--steps", steps_);
    const auto shape = train::resolve_model(as_training(), 1);
    return {shape, train::precision_of(as_training(), shape)};
  }
  train::TrainOptions as_training() const {
    train::TrainOptions t;
    t.model = models::to_spec(models::model_from_spec(model_, {.vocab = 256, .context = seq_}));
    t.batch = batch_;
    t.seq = seq_;
    t.precision = precision_;
    t.clip_norm = 0;
    t.fuse_optimizer = fuse_optimizer_;
    return t;
  }
  void refuse_what_does_not_fit(const models::ModelOptions& shape, const train::PrecisionPlan& plan) const {
    const auto need = train::plan_bytes(shape, as_training(), plan).peak, have = cpu_info().memory;
    if (need > have)
      fail("bench", fmt::format("this needs {} of memory, of which this machine has {}", format_bytes(need), format_bytes(have)),
           "a smaller --batch or model");
  }

  void report(Console& console, const models::ModelOptions& shape, const train::PrecisionPlan& plan, const std::vector<Sample>& samples,
              double loss) const {
    const MemoryReport memory = memory_report();
    const std::int64_t rss = peak_rss(), anonymous = anonymous_bytes();  // what the allocator has taken it keeps: this is the most there was
    const auto of = [&](auto&& f) {
      std::vector<double> v;
      for (const auto& s : samples) v.push_back(f(s));
      return median(std::move(v));
    };
    const double ms = of([](const Sample& s) { return s.ms; });
    const auto tokens = static_cast<double>(batch_ * seq_), parameters = static_cast<double>(models::parameter_count(shape));
    const double gflops = 6 * parameters * tokens / ms / 1e6;
    release_cached_memory();
    const double peak = peak_gflops(plan.recipe.low, kPeakBudget);

    io::Json parts = io::Json::object();
    for (std::size_t i = 0; i < kParts; ++i) parts[std::string(kPartNames[i])] = 1e3 * of([i](const Sample& s) { return s.parts[i]; });
    std::int64_t faults = 0, mappings = 0, settled = 0;
    for (std::size_t i = 0; i < samples.size(); ++i)
      if (static_cast<std::int64_t>(i) + kWarmup >= kSettled) {
        faults += samples[i].faults;
        mappings += samples[i].mappings;
        ++settled;
      }
    const double per_step = settled > 0 ? static_cast<double>(settled) : std::nan("");

    io::Json document(
        {{"step_ms_median", ms},
         {"tokens_per_second", 1e3 * tokens / ms},
         {"gflops", gflops},
         {"gemm_peak_gflops", peak},
         {"fraction_of_peak", gflops / peak},
         {"peak_bytes", memory.peak},
         {"peak_rss_bytes", rss},
         {"start_anonymous_bytes", start_anonymous_},
         {"anonymous_bytes", anonymous},
         {"bytes", train::bytes_json(memory.at_peak)},
         {"parts", parts},
         {"minor_faults_per_step", static_cast<double>(faults) / per_step},
         {"mappings_per_step", static_cast<double>(mappings) / per_step},
         {"step_ms_min", std::min_element(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) { return a.ms < b.ms; })->ms},
         {"steps", steps_},
         {"loss", loss},
         {"parameters", models::parameter_count(shape)},
         {"model", models::to_spec(shape)},
         {"batch", batch_},
         {"seq", seq_},
         {"precision", plan.recipe.name},
         {"isa", plan.isa},
         {"threads", num_threads()}});
    constexpr std::size_t kTenths = 10;
    if (samples.size() >= kTenths) {
      io::Json tenths = io::Json::array();
      for (std::size_t i = 0; i < kTenths; ++i) {
        std::vector<double> v;
        for (std::size_t k = samples.size() * i / kTenths; k < samples.size() * (i + 1) / kTenths; ++k) v.push_back(samples[k].ms);
        tenths.push_back(median(std::move(v)));
      }
      document["step_ms_by_tenth"] = tenths;
    }
    std::optional<std::int64_t> saved;
    if (fuse_optimizer_) {
      train::TrainOptions apart = as_training();
      apart.fuse_optimizer = false;
      saved = train::plan_bytes(shape, apart, plan).peak - memory.peak;
      document["fused_saves_bytes"] = *saved;
    }
    console.result(document);
    if (console.json()) return;

    console.say(
        fmt::format("\n{}, batch {}, seq {}, {} parameters, {}, {} threads\n"
                    "step       {} ms (median of {}), {} tokens/s\n"
                    "speed      {:.0f} GFLOP/s (6 x parameters x tokens), {:.0f} % of the {:.0f} that {} products reach in cache\n"
                    "memory     {} live at the peak, {} resident\n"
                    "faults     {:.1f} minor faults, {:.1f} mappings a step, from the {}th step on\n",
                    models::to_spec(shape), batch_, seq_, format_count(models::parameter_count(shape)), plan.recipe.name, num_threads(),
                    format_ms(ms), samples.size(), format_count(std::llround(1e3 * tokens / ms)), gflops, 100 * gflops / peak, peak,
                    name(plan.recipe.low), format_bytes(memory.peak), format_bytes(rss), static_cast<double>(faults) / per_step,
                    static_cast<double>(mappings) / per_step, kSettled + 1));
    Table time({"part", "ms", "share"});
    for (const auto& [part, value] : parts.items()) time.row({part, format_ms(value.get<double>()), format_share(value.get<double>() / ms)});
    console.say(time.text());
    Table bytes({"bytes", "at the peak"});
    for (std::size_t i = 0; i < kMemoryCategories; ++i) bytes.row({std::string(name(static_cast<Memory>(i))), format_bytes(memory.at_peak[i])});
    console.say(fmt::format("\n{}", bytes.text()));
    if (saved) console.say(fmt::format("\n{} less at the peak than with the optimizer after backward\n", format_bytes(*saved)));
  }

  std::string model_ = "gpt:layers=6,heads=6,width=384", precision_ = "auto";
  std::int64_t batch_ = 8, seq_ = 256, steps_ = 20;
  std::int64_t start_anonymous_ = 0;
  bool fuse_optimizer_ = false;
  std::uint64_t seed_ = 0;
};

}  // namespace

const Command kBench{"bench", "Times whole training steps on synthetic tokens", [] { return std::unique_ptr<Task>(std::make_unique<Bench>()); }};

}  // namespace mezzo::cli
