// train.cpp - `mezzo train`: a language model from scratch, on text, in a run directory that can be stopped and resumed.
#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "cli/record.h"
#include "cli/report.h"
#include "cli/stop.h"
#include "cli/train_options.h"
#include "train/options.h"
#include "train/vocabulary.h"

namespace mezzo::cli {
namespace {

class Train final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--data FILE|DIR --out DIR [options]");
    o.footer(
        "example: mezzo train --data book.txt --model gpt:layers=6,heads=6,width=384 --batch 12 --seq 256 --steps 2000 --lr 1e-3 --out runs/book\n"
        "         mezzo train --out runs/book --resume\n"
        "Ctrl-C stops after the step and writes a checkpoint; --resume continues from it, bit for bit.");
    declare_training(o, arguments_);
  }

  int run(Options& options, Console& console) override {
    complete(options, arguments_);
    const auto& t = arguments_.options;
    checking_usage([&] {
      train::check(t);
      train::resolve_model(t, train::vocab_of(t));
      train::resolve({.precision = t.precision, .loss_scale = t.loss_scale});
    });

    train::Trainer trainer(t);
    catch_interrupts("mezzo train: stopping after this step, writing a checkpoint");
    introduce(trainer, console);
    ProgressLine progress;
    const train::TrainSummary summary = trainer.run(
        [&](const train::Progress& p) {
          if (p.val_loss) progress.keep(fmt::format("step {}/{}  validation loss {:.4f}", p.step, p.steps, *p.val_loss));
          if (!p.applied)
            progress.keep(fmt::format("step {}/{}  skipped: Inf or NaN in the gradient of {} at loss scale {}", p.step, p.steps, p.culprit, p.scale));
          if (progress.due()) progress.update(describe(p));
        },
        interrupted);
    progress.clear();
    write_report(trainer.options().out, trainer, summary);
    conclude(trainer, summary, console);
    return summary.status == train::RunStatus::interrupted ? interrupted_code() : kSuccess;
  }

 private:
  static void introduce(const train::Trainer& trainer, Console& console) {
    const auto& o = trainer.options();
    const auto& m = trainer.model_options();
    const auto& corpus = trainer.corpus();
    console.say(fmt::format("{:<10} {}: {} parameters\n{:<10} {}: {}, {} tokens for training, {} for validation", "model", models::to_spec(m),
                            format_count(models::parameter_count(m)), "text", o.data.native(), format_files(corpus.files()),
                            format_count(corpus.train().size()), format_count(corpus.validation().size())));
    console.say(train::to_string(trainer.plan()));
    console.say(describe(trainer.memory()));
    if (trainer.loss_divisor() > 1)
      console.say(fmt::format("the loss is the mean over a global batch of {} tokens, of which each step runs {}\n", format_count(o.global_batch),
                              format_count(train::tokens_of_step(o))));
    for (const auto& w : trainer.warnings())
      if (const auto& known = trainer.plan().warnings; std::find(known.begin(), known.end(), w) == known.end()) console.note("warning: " + w);
    if (trainer.first_step() > 0) console.say(fmt::format("resumed after step {} of {}", trainer.first_step(), o.steps));
  }

  static void conclude(const train::Trainer& trainer, const train::TrainSummary& s, Console& console) {
    const auto& out = trainer.options().out;
    io::Json document = to_json(s);
    document["precision"] = trainer.plan().recipe.name;
    document["out"] = out.native();
    document["report"] = (out / "report.html").native();
    console.result(document);
    if (console.json()) return;
    console.say(summary_table({{.name = trainer.plan().recipe.name, .about = {}, .steps = {}, .summary = s, .failure = {}}}).text());
    if (s.status == train::RunStatus::interrupted)
      console.say(fmt::format("\nstopped after step {}; continue with: mezzo train --out {} --resume", s.step, out.native()));
    else console.say(fmt::format("\nmodel      {}\nreport     {}", (out / "model").native(), (out / "report.html").native()));
  }

  TrainingArguments arguments_;
};

}  // namespace

const Command kTrain{"train", "Trains a GPT from scratch on text", [] { return std::unique_ptr<Task>(std::make_unique<Train>()); }};

}  // namespace mezzo::cli
