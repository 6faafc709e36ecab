// train.cpp - `mezzo train`: a language model from scratch, on text, in a run directory that can be stopped and resumed.
#include "cli/command.h"
#include "cli/train_options.h"
#include "cli/training.h"
#include "train/options.h"

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
    complete(options, arguments_, RunKind::training);
    const auto& t = arguments_.options;
    checking_usage([&] {
      train::check(t);
      train::precision_of(t, train::shape_of(t));
    });
    train::Trainer trainer(t);
    return run_training(trainer, options.command(), "mezzo train: stopping after this step, writing a checkpoint", console);
  }

 private:
  TrainingArguments arguments_;
};

}  // namespace

const Command kTrain{"train", "Trains a GPT or Llama from scratch on text", [] { return std::unique_ptr<Task>(std::make_unique<Train>()); }};

}  // namespace mezzo::cli
