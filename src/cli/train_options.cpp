// train_options.cpp
#include "cli/train_options.h"

#include <fmt/ranges.h>

#include "cli/format.h"

namespace mezzo::cli {

void declare_training(Options& o, TrainingArguments& a) {
  auto& t = a.options;
  o.group("what is trained");
  o.value("--data", "FILE|DIR", t.data, "Text: a file, or a directory of text files");
  o.value("--model", "SPEC", t.model,
          "gpt:layers=,heads=,width=[,vocab=][,context=][,dropout=], llama:... (and kv_heads=, ffn=), gpt2-124m or smollm2-135m");
  o.value("--vocab", "N", t.vocab, "Learns a byte-level vocabulary of N tokens from the text; 0: tokens are bytes");
  o.value("--out", "DIR", t.out, "The run directory; made when it is not there");
  o.value("--val-fraction", "X", t.val_fraction, "Share of every file that is for validation; 0: none");
  o.value("--seed", "S", t.seed, "Of weights, order of the data, dropout");
  o.group("how much at once, how long");
  o.value("--batch", "B", t.batch, "Sequences of a micro-batch");
  o.value("--seq", "T", t.seq, "Tokens of a sequence");
  o.value("--accumulate", "K", t.accumulate, "Micro-batches of a step; the loss is their mean");
  o.value("--global-batch", "TOKENS", t.global_batch, "Tokens over which the loss is a mean, of which a step runs B x T x K; 0: those");
  o.value("--steps", "N", t.steps, "Steps of the whole run");
  o.group("optimizer");
  o.value("--optimizer", "NAME", t.optimizer, "adamw, adam, sgd, adagrad, lion, adafactor");
  o.value("--state-dtype", "T", t.state_dtype,
          "Of its moments: f32, bf16 (rounded by chance), u8 (adamw and adam); without it what the precision means");
  o.value("--lr", "X", t.lr, "Learning rate, at its highest");
  o.value("--schedule", "NAME", t.schedule, "constant, linear, cosine, wsd");
  o.value("--warmup", "N", t.warmup, "Steps of linear rise; without it a twentieth of the run, at most 500");
  o.value("--final-fraction", "X", t.final_fraction, "Last learning rate, as a share of --lr");
  o.value("--weight-decay", "X", t.weight_decay, "On matrices only");
  o.value("--betas", "X,Y", t.betas, "Of the moments of adamw, adam (without it 0.9,0.95) and lion (0.9,0.99)");
  o.value("--momentum", "X", t.momentum, "Of sgd");
  o.value("--clip-norm,--clip", "X", t.clip_norm, "Gradients are scaled down to this norm; 0: no clipping");
  o.group("precision");
  o.value("--precision", "P", t.precision, fmt::format("auto, {}", fmt::join(train::recipe_names(), ", ")));
  o.value("--loss-scale", "S", t.loss_scale, "dynamic, none, or a number; without it what the precision needs");
  o.group("what is written");
  o.value("--checkpoint-steps", "N", t.checkpoint_steps, "A checkpoint each N steps; 0: only when the run ends or is stopped");
  o.value("--keep", "N", t.keep, "Newest checkpoints that stay; 0: all");
  o.value("--eval-steps", "N", t.eval_steps, "Validation loss each N steps; 0: only at the end");
  o.value("--eval-tokens", "N", t.eval_tokens, "Validation tokens of these; 0: all. At the end: all");
  o.flag("--no-tensorboard", a.no_tensorboard, "No TensorBoard event files");
  o.group("going on");
  o.flag("--resume", t.resume, "Continue the run in --out from its newest checkpoint, with its own options unless given anew");
  o.value("--resume-step", "N", t.resume_step, "... from checkpoints/step-N; later ones are made again");
}

void complete(Options& o, TrainingArguments& a) {
  auto& t = a.options;
  if (t.resume || t.resume_step) {
    o.require("--out", "the directory of the run to resume");
    t = train::run_options(t.out);
    o.apply();
    t.resume = true;
  }
  if (a.no_tensorboard) t.tensorboard = false;
  t.threads = 0;  // the program has set them
}

std::string describe(const train::MemoryPlan& plan) {
  Table table({"memory, planned", ""});
  for (std::size_t c = 0; c < kMemoryCategories; ++c) table.row({std::string(name(static_cast<Memory>(c))), format_bytes(plan.bytes[c])});
  table.row({"at the peak", format_bytes(plan.peak)});
  return table.text();
}

}  // namespace mezzo::cli
