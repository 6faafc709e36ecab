// training.cpp - what a run says before, while and after it trains.
#include "cli/training.h"

#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/format.h"
#include "cli/progress.h"
#include "cli/record.h"
#include "cli/report.h"
#include "cli/stop.h"
#include "cli/train_options.h"
#include "train/options.h"
#include "train/result.h"

namespace mezzo::cli {
namespace {

std::string count(const io::Json& j, const char* key) { return format_count(j.at(key).get<std::int64_t>()); }

/// "examples   chat.jsonl: 180 (12,345 tokens, of which 4,567 carry loss), 20 held out"
std::string describe_data(const train::TrainOptions& o, const io::Json& data) {
  if (!o.tune)
    return fmt::format("{:<10} {}: {}, {} tokens for training, {} for validation", "text", o.data.native(),
                       format_files(data.at("files").get<std::int64_t>()), count(data, "train_tokens"), count(data, "validation_tokens"));
  std::string text = fmt::format("{:<10} {}: {} ({} tokens, of which {} carry loss), {} held out", "examples", o.data.native(),
                                 count(data, "examples"), count(data, "tokens"), count(data, "targets"), count(data.at("held_out"), "examples"));
  if (const auto n = data.at("overlong").get<std::int64_t>(); n > 0)
    text += fmt::format("\n{:<10} {} of {} lines are longer than --seq {}: {}, {} examples dropped", "", format_count(n), count(data, "lines"), o.seq,
                        train::name(o.tune->overlong), count(data, "dropped"));
  if (const auto n = data.at("bad_lines").get<std::int64_t>(); n > 0)
    text += fmt::format("\n{:<10} {} of {} lines passed over; the first: {}", "", format_count(n), count(data, "lines"),
                        data.at("first_bad").get<std::string>());
  return text;
}

std::string describe_model(const train::Trainer& trainer) {
  const auto& o = trainer.options();
  const auto& shape = trainer.model_options();
  const std::string all = format_count(models::parameter_count(shape));
  if (!o.tune) return fmt::format("{:<10} {}: {} parameters", "model", models::to_spec(shape), all);
  const std::string trained = o.tune->full ? "all are trained"
                                           : fmt::format("frozen, beside them adapters of rank {} with {} parameters", o.tune->lora.rank,
                                                         format_count(trainer.trained_parameters()));
  return fmt::format("{:<10} {}: {}\n{:<10} {} parameters; {}", "model", o.model, models::to_spec(shape), "", all, trained);
}

void introduce(const train::Trainer& trainer, Console& console) {
  const auto& o = trainer.options();
  console.say(describe_model(trainer));
  console.say(describe_data(o, trainer.workload().describe()));
  console.say(train::to_string(trainer.plan()));
  console.say(describe(trainer.memory()));
  if (o.epochs > 0) console.say(fmt::format("{:<10} {} for {} passes over the examples", "steps", format_count(o.steps), o.epochs));
  if (trainer.loss_divisor() > 1)
    console.say(fmt::format("the loss is the mean over a global batch of {} tokens, of which each step runs {}\n", format_count(o.global_batch),
                            format_count(train::tokens_of_step(o))));
  for (const auto& w : trainer.warnings())
    if (const auto& known = trainer.plan().warnings; std::find(known.begin(), known.end(), w) == known.end()) console.note("warning: " + w);
  if (trainer.first_step() > 0) console.say(fmt::format("resumed after step {} of {}", trainer.first_step(), o.steps));
}

void give_result(const train::Trainer& trainer, const train::TrainSummary& s, Console& console) {
  const auto& out = trainer.options().out;
  io::Json document = to_json(s);
  document["precision"] = trainer.plan().recipe.name;
  document["out"] = out.native();
  document["report"] = (out / "report.html").native();
  console.result(document);
}

/// A run that is resumed and has ended already: its files stay as they are.
int nothing_left(const train::Trainer& trainer, const train::TrainSummary& s, Console& console) {
  const auto& out = trainer.options().out;
  if (!std::filesystem::exists(out / "report.html")) write_report(out, trainer, s);
  give_result(trainer, s, console);
  console.say(fmt::format("nothing is left to do: the run has ended, after step {} of {}; its report is {}", s.step, trainer.options().steps,
                          (out / "report.html").native()));
  return kSuccess;
}

void conclude(const train::Trainer& trainer, const train::TrainSummary& s, std::string_view command, Console& console) {
  const auto& out = trainer.options().out;
  give_result(trainer, s, console);
  if (s.skipped == s.step && s.step > 0)
    console.note(
        fmt::format("warning: none of the {} steps was applied, the model is as it was: gradients overflow at loss scale {:g}; "
                    "--loss-scale dynamic finds one that holds",
                    s.step, s.scale));
  if (console.json()) return;
  console.say(summary_table({{.name = trainer.plan().recipe.name, .about = {}, .steps = {}, .summary = s, .failure = {}}}).text());
  if (s.status == train::RunStatus::interrupted) {
    console.say(fmt::format("\nstopped after step {}; continue with: {} --out {} --resume", s.step, command, out.native()));
    return;
  }
  if (s.step < trainer.options().steps)
    console.say(fmt::format("\nended after step {} of {}: {} evaluations without a lower loss; the model is that of step {}", s.step,
                            trainer.options().steps, trainer.options().early_stop, s.best_step > 0 ? s.best_step : s.step));
  console.say(fmt::format("\n{:<10} {}\nreport     {}", trainer.options().tune && !trainer.options().tune->full ? "adapter" : "model",
                          (out / "model").native(), (out / "report.html").native()));
}

}  // namespace

int run_training(train::Trainer& trainer, std::string_view command, const char* promise, Console& console) {
  if (const auto& ended = trainer.ended()) return nothing_left(trainer, *ended, console);
  catch_interrupts(promise);
  introduce(trainer, console);
  ProgressLine progress;
  const train::TrainSummary summary = trainer.run(
      [&](const train::Progress& p) {
        if (p.val_loss)
          progress.keep(fmt::format("step {}/{}  validation loss {}{}", p.step, p.steps, format_loss(*p.val_loss), p.best ? "" : ", not the lowest"));
        if (!p.applied)
          progress.keep(fmt::format("step {}/{}  skipped: Inf or NaN in the gradient of {} at loss scale {}", p.step, p.steps, p.culprit, p.scale));
        if (progress.due()) progress.update(describe(p));
      },
      interrupted);
  progress.clear();
  write_report(trainer.options().out, trainer, summary);
  conclude(trainer, summary, command, console);
  return summary.status == train::RunStatus::interrupted ? interrupted_code() : kSuccess;
}

}  // namespace mezzo::cli
