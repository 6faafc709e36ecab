// finetune.cpp - `mezzo finetune`: an existing language model on conversations or texts, with adapters or whole.
#include "cli/command.h"
#include "cli/train_options.h"
#include "cli/training.h"
#include "train/options.h"

namespace mezzo::cli {
namespace {

class Finetune final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--model FILE.gguf|DIR --data chat.jsonl --out DIR [--lora-rank 16 | --full] [options]");
    o.footer(
        "example: mezzo finetune --model SmolLM2-135M-Instruct.Q4_1.gguf --data chat.jsonl --lora-rank 16 --seq 512 --out runs/chat\n"
        "         mezzo finetune --out runs/chat --resume\n"
        "A line of the data: {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, {\"role\": \"assistant\", ...}]}, {\"prompt\", "
        "\"completion\"} or "
        "{\"text\"}.\n"
        "Ctrl-C stops after the step and writes a checkpoint; --resume continues from it, bit for bit.");
    declare_tuning(o, arguments_);
  }

  int run(Options& options, Console& console) override {
    complete(options, arguments_, RunKind::tuning);
    const auto& t = arguments_.options;
    checking_usage([&] { train::check(t); });
    train::Trainer trainer(t);
    return run_training(trainer, options.command(), "mezzo finetune: stopping after this step, writing a checkpoint", console);
  }

 private:
  TrainingArguments arguments_;
};

}  // namespace

const Command kFinetune{"finetune", "Trains an existing model further, on conversations or texts",
                        [] { return std::unique_ptr<Task>(std::make_unique<Finetune>()); }};

}  // namespace mezzo::cli
