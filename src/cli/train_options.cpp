// train_options.cpp - declares the options of a run by group, and completes what was left out.
#include <fmt/format.h>

#include "cli/train_options.h"

#include <algorithm>

#include <fmt/ranges.h>

#include "cli/command.h"
#include "cli/format.h"

namespace mezzo::cli {
namespace {

// Options that are for one kind of run alone.
constexpr std::array<std::string_view, 3> kForText{"--vocab", "--global-batch", "--eval-tokens"};
constexpr std::array<std::string_view, 5> kForAdapters{"--lora-rank", "--lora-alpha", "--lora-dropout", "--rslora", "--lora-targets"};
constexpr std::array<std::string_view, 9> kForTuning{"--full",     "--dropout",  "--quantize-base", "--eval-data",     "--no-packing",
                                                     "--overlong", "--train-on", "--chat-template", "--skip-bad-lines"};

constexpr const char* kSpecs = "gpt:layers=,heads=,width=[,vocab=][,context=][,dropout=], llama:... (and kv_heads=, ffn=), gpt2-124m or smollm2-135m";

void declare_text(Options& o, TrainingArguments& a) {
  o.value("--vocab", "N", a.options.vocab, "Learns a byte-level vocabulary of N tokens from the text; 0: tokens are bytes");
}

void declare_adapters(Options& o, TrainingArguments& a) {
  auto& t = a.tune;
  o.group("what of the model");
  o.value("--lora-rank", "R", t.lora.rank, "Adapters of this rank beside the frozen model");
  o.value("--lora-alpha", "X", t.lora.alpha, "They count alpha / rank");
  o.value("--lora-dropout", "P", t.lora.dropout, "Of their inputs");
  o.flag("--rslora", t.lora.rslora, "They count alpha / sqrt(rank) instead");
  o.value(
      "--lora-targets", "A,B", t.lora.targets,
      "Layers that get one, by their names: q_proj, v_proj ... of a Llama, c_attn, c_fc, c_proj (attn.c_proj, mlp.c_proj) of a GPT-2; all-linear: "
      "all of either");
  o.flag("--full", t.full, "All weights instead, without adapters");
  o.value("--dropout", "P", t.dropout, "Of the model itself, GPT-2's, whatever its file says; above 0 with --no-packing only");
  o.value("--quantize-base", "F", t.quantize_base,
          "q8_0, q4_0, nf4: layers' matrices that the file has element by element are rounded into such blocks");
}

void declare_examples(Options& o, TrainingArguments& a) {
  auto& t = a.tune;
  o.group("examples");
  o.value("--eval-data", "FILE", t.eval_data, "Held-out examples; without it --val-fraction of the lines");
  o.value("--overlong", "WHAT", t.overlong, "split, cut or drop examples longer than --seq");
  o.value("--train-on", "WHAT", t.train_on, "assistant: loss on its turns and on completions; everything: on prompts too");
  o.value("--chat-template", "FILE", t.chat_template, "How conversations are written, in Jinja, instead of the model's own; kept with the run");
  o.flag("--no-packing", a.no_packing, "One example a row, padded, instead of several side by side");
  o.flag("--skip-bad-lines", t.skip_bad_lines, "Passes over lines that cannot be used, and counts them");
}

enum class For : std::uint8_t { text, tuning, either };

void declare_amounts(Options& o, TrainingArguments& a, For kind) {
  auto& t = a.options;
  o.group("how much at once, how long");
  o.value("--batch", "B", t.batch, "Sequences of a micro-batch");
  o.value(
      "--seq", "T", t.seq,
      kind == For::text ? "Tokens of a sequence" : "Tokens of a sequence; of an example at most. 0: 1024, or the model's context where that is less");
  o.value("--accumulate", "K", t.accumulate, "Micro-batches of a step; the loss is the mean over their tokens");
  o.value("--checkpoint-every", "N", t.checkpoint_every, "Keeps of each N blocks the input only; backward computes them again. 0: keeps all");
  if (kind != For::tuning)
    o.value("--global-batch", "TOKENS", t.global_batch, "Tokens over which the loss is a mean, of which a step runs B x T x K; 0: those");
  o.value("--steps", "N", t.steps, "Steps of the whole run");
  o.value("--epochs", "N", t.epochs, "Passes over the data, instead of --steps");
}

void declare_optimizer(Options& o, TrainingArguments& a, For kind) {
  auto& t = a.options;
  o.group("optimizer");
  o.value("--optimizer", "NAME", t.optimizer, "adamw, adam, sgd, adagrad, lion, adafactor");
  o.value("--state-dtype", "T", t.state_dtype,
          "Of its moments: f32, bf16 (rounded by chance), u8 (adamw and adam); without it what the precision means");
  o.value("--lr", "X", t.lr, kind == For::tuning ? "Learning rate, at its highest; with --full 2e-5" : "Learning rate, at its highest");
  o.value("--schedule", "NAME", t.schedule, "constant, linear, cosine, wsd");
  o.value("--warmup", "N", t.warmup, "Steps of linear rise; without it a twentieth of the run, at most 500");
  o.value("--final-fraction", "X", t.final_fraction, "Last learning rate, as a share of --lr");
  o.value("--weight-decay", "X", t.weight_decay, "On matrices only");
  o.value("--betas", "X,Y", t.betas,
          kind == For::tuning ? "Of the moments of adamw, adam and lion" : "Of the moments of adamw, adam (without it 0.9,0.95) and lion (0.9,0.99)");
  o.value("--momentum", "X", t.momentum, "Of sgd");
  o.value("--clip-norm,--clip", "X", t.clip_norm, "Gradients are scaled down to this norm; 0: no clipping");
  o.flag("--fuse-optimizer", t.fuse_optimizer, "Updates each weight and frees its gradient as soon as backward has it: the same bits in less memory");
}

void declare_rest(Options& o, TrainingArguments& a, For kind) {
  auto& t = a.options;
  o.group("precision");
  o.value("--precision", "P", t.precision, fmt::format("auto, {}", fmt::join(train::recipe_names(), ", ")));
  o.value("--loss-scale", "S", t.loss_scale, "dynamic, none, or a number; without it what the precision needs");
  o.value("--f32-ops", "A,B", t.f32_ops, "Ops of the model that compute in f32 where the precision would choose 16 bits");
  o.group("when it diverges");
  o.value(
      "--on-divergence", "WHAT", t.on_divergence,
      fmt::format("warn: of a loss that has risen and stays there, and stop where numbers are not finite{}; stop: at both; rollback: to the newest "
                  "checkpoint of before, and past the data since; fallback: so too, and with the next of --fallbacks",
                  kind == For::tuning ? " (in fp16: compute the op that overflowed in f32, else go on in bf16)" : ""));
  o.value("--fallbacks", "A,B", t.fallbacks,
          "op: the op that overflowed in f32; lr, lr=X: the learning rate times 0.5, X; bf16, fp32: another precision");
  o.value("--max-rollbacks", "N", t.max_rollbacks, "Of --on-divergence rollback, in the whole run; then it stops");
  o.group("what is written");
  o.value("--checkpoint-steps", "N", t.checkpoint_steps, "A checkpoint each N steps; 0: only when the run ends or is stopped");
  o.value("--keep", "N", t.keep, "Newest checkpoints that stay; 0: all");
  o.value("--eval-steps", "N", t.eval_steps, "Validation loss each N steps; 0: only at the end");
  if (kind != For::tuning) o.value("--eval-tokens", "N", t.eval_tokens, "Validation tokens of these; 0: all. At the end: all");
  o.value("--early-stop", "N", t.early_stop, "Ends after N evaluations in a row without a lower loss, with the best weights; 0: does not");
  o.flag("--no-tensorboard", a.no_tensorboard, "No TensorBoard event files");
  o.value("--inspect", "every=N", a.inspect, "Looks at the numbers of each N-th step, for `mezzo inspect`; 0: of none");
  o.group("memory");
  o.value("--memory", "GIB", t.memory, "GiB that the run may take; without it what the machine has. A run that needs more does not begin");
  o.flag("--overcommit", t.overcommit, "Begins all the same: it may swap, or be ended by the system");
  o.group("going on");
  o.flag("--resume", t.resume, "Continue the run in --out from its newest checkpoint, with its own options unless given anew");
  o.value("--resume-step", "N", t.resume_step, "... from checkpoints/step-N; later ones are made again");
}

void declare_common(Options& o, TrainingArguments& a, For kind) {
  auto& t = a.options;
  o.value("--out", "DIR", t.out, "The run directory; made when it is not there");
  o.value("--val-fraction", "X", t.val_fraction,
          kind == For::tuning ? "Share of the lines that is held out; 0: none" : "Share of every file that is for validation; 0: none");
  o.value("--seed", "S", t.seed, "Of weights, order of the data, dropout");
  if (kind != For::text) {
    declare_adapters(o, a);
    declare_examples(o, a);
  }
  declare_amounts(o, a, kind);
  declare_optimizer(o, a, kind);
  declare_rest(o, a, kind);
}

template <class Names> void refuse(const Options& o, const Names& names, std::string_view why) {
  for (const auto name : names)
    if (o.given(name)) throw UsageError(fmt::format("[options] {} given, {}", name, why));
}

/// Options that another one makes do nothing.
void refuse_idle(const Options& o, const train::TrainOptions& t) {
  const auto goes_with = [&](const char* name, const char* other, std::initializer_list<std::string_view> values, std::string_view is) {
    if (o.given(name) && std::find(values.begin(), values.end(), is) == values.end())
      throw UsageError(fmt::format("[options] {} given without {} {}, with which it goes", name, other, fmt::join(values, " or ")));
  };
  goes_with("--momentum", "--optimizer", {"sgd"}, t.optimizer);
  goes_with("--betas", "--optimizer", {"adamw", "adam", "lion"}, t.optimizer);
  goes_with("--fallbacks", "--on-divergence", {"fallback"}, train::name(t.on_divergence));
  goes_with("--max-rollbacks", "--on-divergence", {"rollback"}, train::name(t.on_divergence));
}

/// What was given over these defaults, or over a run's options.
void take(Options& o, TrainingArguments& a, train::TrainOptions under) {
  a.options = std::move(under);
  if (a.options.tune) a.tune = *a.options.tune;
  o.apply();
}

}  // namespace

void declare_training(Options& o, TrainingArguments& a) {
  o.group("what is trained");
  o.value("--data", "FILE|DIR", a.options.data, "Text: a file, or a directory of text files");
  o.value("--model", "SPEC", a.options.model, kSpecs);
  declare_text(o, a);
  declare_common(o, a, For::text);
}

void declare_tuning(Options& o, TrainingArguments& a) {
  a.options = train::tuning_defaults(false);
  o.group("what is trained");
  o.value("--model", "FILE|DIR", a.options.model, "A GGUF file, a directory in Hugging Face's layout, or a run directory of mezzo train");
  o.value("--data", "FILE", a.options.data, "Examples, a JSON object a line");
  declare_common(o, a, For::tuning);
}

void declare_either(Options& o, TrainingArguments& a) {
  o.group("what is trained");
  o.value("--data", "FILE|DIR", a.options.data, "Text, a file or a directory; or examples, a JSONL file");
  o.value("--model", "SPEC|FILE|DIR", a.options.model, fmt::format("{}; or a model that is fine-tuned: a GGUF file, a directory", kSpecs));
  declare_text(o, a);
  declare_common(o, a, For::either);
}

void complete(Options& o, TrainingArguments& a, RunKind kind) {
  auto& t = a.options;
  std::error_code none;
  bool tuning = kind == RunKind::tuning;
  if (t.resume || t.resume_step) {
    o.require("--out", "the directory of the run to resume");
    train::TrainOptions run = train::run_options(t.out);
    if (kind != RunKind::either && run.tune.has_value() != tuning)
      throw UsageError(fmt::format("[options] {} is a run of mezzo {}", t.out.native(), tuning ? "train" : "finetune"));
    tuning = run.tune.has_value();
    take(o, a, std::move(run));
    t.resume = true;
  } else {
    if (kind == RunKind::either) tuning = o.given("--model") && std::filesystem::exists(t.model, none);
    if (tuning) {
      o.require("--model", "the model that is fine-tuned");
      take(o, a, train::tuning_defaults(a.tune.full));
    }
  }
  if (o.given("--steps") && o.given("--epochs")) throw UsageError("[options] --steps and --epochs given, one of them wanted");
  if (o.given("--steps")) t.epochs = 0;
  else if (t.epochs == 0 && t.steps == 0) throw UsageError("[options] --epochs 0 given, 1 or more wanted, or --steps");
  refuse_idle(o, t);
  if (a.no_tensorboard) t.tensorboard = false;
  if (o.given("--inspect")) {
    constexpr std::string_view kEvery = "every=";
    read_option("--inspect", a.inspect.substr(a.inspect.starts_with(kEvery) ? kEvery.size() : 0), t.inspect);
  }
  t.threads = 0;  // the program has set them
  if (!tuning) {
    if (kind == RunKind::either) {
      refuse(o, kForTuning, "which is for a model that is fine-tuned: --model names no file");
      refuse(o, kForAdapters, "which is for a model that is fine-tuned: --model names no file");
    }
    return;
  }
  if (kind == RunKind::either) refuse(o, kForText, "which is for training on text: --model is a file");
  if (a.tune.full) refuse(o, kForAdapters, "which is for adapters, together with --full");
  if (a.no_packing) a.tune.packing = false;
  if (!a.tune.eval_data.empty()) {
    if (o.given("--val-fraction")) throw UsageError("[options] --eval-data and --val-fraction given, one of them wanted");
    t.val_fraction = 0;
  }
  t.tune = a.tune;
}

std::string describe(const train::MemoryPlan& plan) {
  Table table({"memory, planned", ""});
  for (std::size_t c = 0; c < kMemoryCategories; ++c) table.row({std::string(name(static_cast<Memory>(c))), format_bytes(plan.bytes[c])});
  table.row({"at the peak", format_bytes(plan.peak)});
  return table.text();
}

}  // namespace mezzo::cli
