// demo.cpp - `mezzo demo`: the paper's experiment on loss scaling at a size that takes minutes. One small GPT, trained four times from the same
// start on the same text: fp32, bf16, and fp16 with masters, with and without loss scaling. (Mixed Precision Training, arXiv 1710.03740, section 3.)
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>

#include <nlohmann/json.hpp>

#include <mezzo/amp.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/record.h"
#include "cli/report.h"
#include "cli/stop.h"
#include "core/fail.h"
#include "io/file.h"
#include "kernels/kernels.h"
#include "train/options.h"
#include "train/result.h"

namespace mezzo::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kMarker = "demo.json";
constexpr double kFarBehind = 0.1;  // nats above fp32's validation loss: five times what another seed does

struct Variant {
  const char* name;
  const char* about;
  const char* precision;
  const char* loss_scale;
  const char* directory;
};
constexpr std::array<Variant, 4> kVariants{{
    {"fp32", "", "fp32", "", "fp32"},
    {"bf16", "", "bf16", "", "bf16"},
    {"fp16-master", "dynamic loss scaling", "fp16-master", "dynamic", "fp16-master"},
    {"fp16-master", "no loss scaling", "fp16-master", "none", "fp16-master-unscaled"},
}};
constexpr std::size_t kFp32 = 0, kBf16 = 1, kScaled = 2, kUnscaled = 3;

/// The settings, fixed once: none is turned until something fails.
train::TrainOptions settings(const fs::path& data, std::int64_t steps) {
  train::TrainOptions t;
  t.data = data;
  t.model = "gpt:layers=2,heads=4,width=64";
  t.batch = 16;
  t.seq = 64;
  t.steps = steps;
  t.global_batch = 524288;
  t.lr = 2e-3;
  t.seed = 1;
  t.checkpoint_steps = t.eval_steps = 0;
  t.keep = 1;
  return t;
}

class Demo final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("[--data DIR] [--out DIR]");
    o.footer("Every setting is fixed, --steps excepted, which is there to try the program out: a shorter run shows nothing.");
    o.group("what is trained");
    o.value("--data", "FILE|DIR", data_, "English text; Debian's package fortunes has some");
    o.value("--out", "DIR", out_, "The report's directory; one that a demo made before is made anew");
    o.value("--steps", "N", steps_, "Steps of each run");
  }

  int run(Options&, Console& console) override {
    const auto begin = Clock::now();
    const train::TrainOptions base = settings(data_, steps_);
    checking_usage([&] {
      train::TrainOptions complete = base;
      complete.out = out_;
      train::check(complete);
    });
    if (!fs::exists(data_)) fail("demo", fmt::format("{}: no such text", data_.native()), "apt-get install fortunes, or --data FILE");
    prepare_directory();
    const io::DirectoryLock lock(out_);
    catch_interrupts("mezzo demo: stopping");

    std::vector<RunRecord> runs;
    Facts facts;
    std::string sample;
    for (std::size_t i = 0; i < kVariants.size(); ++i) {
      train::TrainOptions t = base;
      t.precision = kVariants[i].precision;
      t.loss_scale = kVariants[i].loss_scale;
      t.out = out_ / "runs" / kVariants[i].directory;
      train::Trainer trainer(t);
      if (i == 0) {
        facts = setting_facts(trainer.options(), trainer.model_options());
        introduce(trainer, console);
      }
      runs.push_back(train(trainer, i, begin));
      if (interrupted()) return interrupted_code();
      if (i == kBf16) sample = sample_of(trainer);
    }

    const std::vector<std::string> said = findings(runs, base);
    Report page{.title = "Mixed precision, four ways",
                .lede = {introduction(base)},
                .runs = runs,
                .findings = said,
                .sample_title = "Text from the bf16 model",
                .sample = sample,
                .settings = facts,
                .machine = machine_facts()};
    io::write_file(out_ / "index.html", to_html(page));
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    const io::Json document = to_document(runs, said, sample, seconds);
    io::write_json(out_ / kMarker, document);
    console.result(document);
    if (console.json()) return kSuccess;
    console.say(fmt::format("\n{}", summary_table(runs).text()));
    for (const auto& s : said) console.say(s + "\n");
    console.say(fmt::format("text from the bf16 model:\n{}\n\nthe page with the curves: {}\nall of it took {}", sample,
                            (out_ / "index.html").native(), format_seconds(seconds)));
    return kSuccess;
  }

 private:
  /// An empty directory, or one of an earlier demo: nobody else's files are touched.
  void prepare_directory() const {
    if (fs::exists(out_) && (!fs::is_directory(out_) || (!fs::is_empty(out_) && !fs::exists(out_ / kMarker))))
      fail("demo", fmt::format("{}: is there, and not from a demo", out_.native()), "--out names another directory");
    std::error_code error;
    fs::create_directories(out_, error);
    if (error) io::fail_file("demo", out_, error.value());
    io::write_json(out_ / kMarker, {{"status", "running"}});
    fs::remove(out_ / "index.html");
    fs::remove_all(out_ / "runs");
  }

  static std::string introduction(const train::TrainOptions& t) {
    return fmt::format(
        "One small GPT is trained four times from the same start, on the same text in the same order: in fp32, in bf16, and in fp16 with fp32 "
        "masters, with and without loss scaling. "
        "The loss is the mean over a global batch of {} tokens, of which each step runs one micro-batch of {}: the gradients that flow are {:g} "
        "times smaller than those of a mean over the micro-batch, as they are "
        "wherever a large batch is accumulated, and the formats have to bear it.",
        format_count(t.global_batch), format_count(train::tokens_of_step(t)), train::loss_divisor(t));
  }

  static void introduce(const train::Trainer& trainer, Console& console) {
    const io::Json text = trainer.workload().describe();
    const auto number = [&](const char* key) { return text.at(key).get<std::int64_t>(); };
    console.say(introduction(trainer.options()) + "\n");
    console.say(fmt::format("text   {}: {}, {} bytes for training, {} for validation", trainer.options().data.native(), format_files(number("files")),
                            format_count(number("train_tokens")), format_count(number("validation_tokens"))));
    console.say(fmt::format("model  {}: {} parameters\n", models::to_spec(trainer.model_options()),
                            format_count(models::parameter_count(trainer.model_options()))));
  }

  /// One run. Its failure is a result like another: it is written down.
  RunRecord train(train::Trainer& trainer, std::size_t i, Clock::time_point begin) const {
    const Variant& v = kVariants[i];
    const std::string title = fmt::format("[{}/{}] {}{}{}", i + 1, kVariants.size(), v.name, *v.about ? ", " : "", v.about);
    RunRecord r{.name = v.name, .about = v.about, .steps = {}, .summary = {}, .failure = {}};
    ProgressLine progress;
    double zero_sum = 0;
    std::vector<double> ms;
    const auto see = [&](const train::Progress& p) {
      zero_sum += p.zero_fraction;
      ms.push_back(p.step_ms);
      r.summary.step = p.step;
      r.summary.skipped = p.skipped;
      if (!progress.due()) return;
      const double passed = std::chrono::duration<double>(Clock::now() - begin).count();
      const double done = static_cast<double>(i) + static_cast<double>(p.step) / static_cast<double>(p.steps);
      progress.update(
          fmt::format("{}  {} (all: {})", title, describe(p), format_seconds(passed / done * (static_cast<double>(kVariants.size()) - done))));
    };
    try {
      r.summary = trainer.run(see, interrupted);
    } catch (const Error& e) {
      r.failure = e.what();
      const MemoryReport memory = memory_report();
      r.summary.zero_fraction = zero_sum / static_cast<double>(std::max<std::size_t>(ms.size(), 1));
      if (!ms.empty()) {
        std::nth_element(ms.begin(), ms.begin() + static_cast<std::ptrdiff_t>(ms.size() / 2), ms.end());
        r.summary.step_ms_median = ms[ms.size() / 2];
      }
      r.summary.steps_run = std::ssize(ms);
      r.summary.peak_bytes = memory.peak;
      r.summary.bytes = memory.at_peak;
    }
    if (interrupted()) return r;
    r.steps = read_steps(trainer.options().out);
    r.config = read_config(trainer.options().out);
    progress.keep(fmt::format("{}  {}", title,
                              !r.failure.empty()
                                  ? "failed: " + r.failure
                                  : fmt::format("validation loss {}, {} ms a step", format_loss(r.summary.val_loss.value_or(std::nan(""))),
                                                format_ms(r.summary.step_ms_median))));
    return r;
  }

  static std::string sample_of(train::Trainer& trainer) {
    const ByteTokenizer tokenizer;
    StreamDecoder decoder(tokenizer);
    std::string text;
    const amp::Autocast region(trainer.plan().recipe.low, {.enabled = trainer.plan().recipe.autocast});
    models::sample(trainer.model(), tokenizer.encode("%\n"), {.max_tokens = 400, .temperature = 0.7, .seed = 1},
                   [&](std::int32_t id) {  // "%" stands between two fortunes
                     text += decoder.push(id);
                     return !interrupted();
                   });
    return text + decoder.finish();
  }

  static std::vector<std::string> findings(const std::vector<RunRecord>& runs, const train::TrainOptions& t) {
    std::vector<std::string> out;
    const double fp32 = runs[kFp32].summary.val_loss.value_or(std::nan(""));
    const auto distance = [&](std::size_t i) { return runs[i].summary.val_loss.value_or(std::nan("")) - fp32; };
    out.push_back(
        fmt::format("Against fp32's validation loss of {:.4f}, bf16 ends {:+.4f} and fp16 with dynamic loss scaling {:+.4f} nats a token away; "
                    "another seed moves each by about 0.02.",
                    fp32, distance(kBf16), distance(kScaled)));
    const auto& unscaled = runs[kUnscaled];
    const std::string end = !unscaled.failure.empty() ? fmt::format("failed: {}", unscaled.failure)
                            : !(distance(kUnscaled) < kFarBehind)
                                ? fmt::format("fell {:.2f} nats behind fp32, to a validation loss of {:.4f}", distance(kUnscaled),
                                              unscaled.summary.val_loss.value_or(std::nan("")))
                                : fmt::format("kept up on this text: it ends {:+.4f} nats from fp32", distance(kUnscaled));
    out.push_back(fmt::format("Without loss scaling fp16 {}. {} of its gradient elements were zero ({} with dynamic scaling, {} in fp32).", end,
                              format_share(unscaled.summary.zero_fraction), format_share(runs[kScaled].summary.zero_fraction),
                              format_share(runs[kFp32].summary.zero_fraction)));
    out.push_back(fmt::format("The loss is the mean over {} tokens; each step ran one micro-batch of {} of them.", format_count(t.global_batch),
                              format_count(train::tokens_of_step(t))));
    const auto speed = [&](std::size_t i) { return runs[kFp32].summary.step_ms_median / runs[i].summary.step_ms_median; };
    out.push_back(fmt::format(
        "At this width (64) bf16 ran at {:.2f} and fp16 at {:.2f} times fp32's speed{}. Larger models are what mezzo bench measures.", speed(kBf16),
        speed(kScaled), kernels::native_gemm(Dtype::f16) ? "" : "; fp16 has no native products here and is widened to f32"));
    return out;
  }

  static io::Json to_document(const std::vector<RunRecord>& runs, const std::vector<std::string>& said, const std::string& sample, double seconds) {
    io::Json list = io::Json::array();
    for (std::size_t i = 0; i < runs.size(); ++i) {
      io::Json j = to_json(runs[i].summary);
      j.erase("checkpoint");
      io::Json run{{"precision", kVariants[i].precision}, {"loss_scale", kVariants[i].loss_scale}, {"failure", runs[i].failure}};
      run.update(j);
      list.push_back(std::move(run));
    }
    return {{"status", "finished"}, {"runs", list}, {"findings", said}, {"sample", sample}, {"seconds", seconds}};
  }

  fs::path data_ = "/usr/share/games/fortunes", out_ = "demo-report";
  std::int64_t steps_ = 1000;
};

}  // namespace

const Command kDemo{"demo", "Trains one small GPT in fp32, bf16 and fp16, and writes a page about it",
                    [] { return std::unique_ptr<Task>(std::make_unique<Demo>()); }};

}  // namespace mezzo::cli
