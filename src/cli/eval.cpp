// eval.cpp - `mezzo eval`: the mean loss a token of a model over a text.
#include <chrono>
#include <cmath>
#include <functional>
#include <optional>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/models.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "core/fail.h"
#include "text/chat_template.h"
#include "text/examples.h"
#include "train/example_eval.h"
#include "train/run_model.h"
#include "train/trainer.h"

namespace mezzo::cli {
namespace {

constexpr std::int64_t kLongestWindow = 2048;  // unless one is asked for: memory grows with it

class Eval final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--model DIR|FILE.gguf --data FILE [--seq T]");
    o.footer(
        "The loss is the mean natural-log loss a token over windows of T inputs and their T next tokens; the incomplete tail is dropped. With a "
        "stride S\n"
        "below T each window but the first counts its last S tokens only, which then have at least T - S before them.");
    o.group("what is evaluated");
    o.value("--model", "DIR|FILE", model_, kModelHelp);
    o.value("--data", "FILE|DIR", data_, "Text: a file, or a directory of text files; with --chat a JSONL file of examples");
    o.value("--seq", "T", seq_, "Tokens of a window; without it the model's context, at most 2048");
    o.value("--stride", "S", stride_, "Tokens from one window to the next, up to T; 0: T");
    o.value("--batch", "B", batch_, "Windows at once");
    o.value("--precision", "P", precision_, asked_precisions());
    o.flag("--bos", bos_, "The beginning-of-text token before each window");
    o.flag("--chat", chat_, "The loss of what `mezzo finetune` would learn of the examples in --data: the assistant's turns, completions");
    o.value("--chat-template", "FILE", template_, "With --chat: a Jinja template instead of the model's own");
    o.flag("--skip-bad-lines", skip_bad_lines_, "With --chat: passes over lines that cannot be used, and counts them");
  }

  int run(Options& options, Console& console) override {
    const train::Recipe recipe = checking_usage([&] {
      options.require("--model", "a run directory or a model");
      options.require("--data", "a text file");
      if (batch_ < 1) fail("eval", fmt::format("--batch {} given, 1 or more wanted", batch_));
      if (seq_ && *seq_ < 1) fail("eval", fmt::format("--seq {} given, 1 or more wanted", *seq_));
      if (stride_ < 0) fail("eval", fmt::format("--stride {} given, 0 or more wanted", stride_));
      if (seq_ && stride_ > *seq_) fail("eval", fmt::format("--stride {} given, at most --seq {} wanted", stride_, *seq_));
      for (const char* other : {"--stride", "--bos"})
        if (chat_ && options.given(other)) fail("eval", fmt::format("{} with --chat given: examples are no windows of a text", other));
      for (const char* other : {"--chat-template", "--skip-bad-lines"})
        if (!chat_ && options.given(other)) fail("eval", fmt::format("{} given without --chat, with which it goes", other));
      return train::recipe(precision_);
    });
    const train::RunModel m = train::load_run_model(model_, for_inference(recipe));
    if (chat_) return run_examples(m, recipe, console);
    const auto begin_of_text = bos_ ? m.tokenizer->begin_of_text() : std::nullopt;
    if (bos_ && !begin_of_text)
      throw UsageError(fmt::format("[eval] --bos given, but the {} tokenizer of {} has no such token", m.tokenizer->kind(), m.source.native()));
    const std::int64_t seq = seq_.value_or(std::min(m.model->context() - (bos_ ? 1 : 0), kLongestWindow));
    const text::Corpus corpus(data_, *m.tokenizer, {.seq = seq, .val_fraction = 0, .end_of_text = false});
    const auto r = watched("window", [&](const auto& on_batch) {
      return train::evaluate(*m.model, corpus.train(), {.batch = batch_, .seq = seq, .stride = stride_, .begin = begin_of_text, .recipe = recipe},
                             on_batch);
    });
    if (interrupted()) return interrupted_code();
    console.result({{"loss", r.loss},
                    {"perplexity", std::exp(r.loss)},
                    {"tokens", r.tokens},
                    {"precision", recipe.name},
                    {"seq", seq},
                    {"stride", stride_ > 0 ? stride_ : seq}});
    if (!console.json())
      console.say(fmt::format("loss {:.4f}, perplexity {:.2f}, over {} tokens in windows of {} ({})", r.loss, std::exp(r.loss),
                              format_count(r.tokens), seq, recipe.name));
    return kSuccess;
  }

 private:
  /// f(on_batch) with a progress line, until it is done or the user stops it.
  template <class F> static train::EvalResult watched(std::string_view what, F f) {
    catch_interrupts("mezzo eval: stopping");
    ProgressLine progress;
    const auto begin = std::chrono::steady_clock::now();
    const std::function<bool(std::int64_t, std::int64_t)> on_batch = [&](std::int64_t done, std::int64_t all) {
      if (progress.due()) progress.update(describe_share(what, done, all, begin));
      return !interrupted();
    };
    const train::EvalResult r = f(on_batch);
    progress.clear();
    if (!interrupted() && !std::isfinite(r.loss))
      fail("eval", fmt::format("the loss is {}", format_loss(r.loss)),
           "a diverged model, or numbers that f16 does not reach: --precision fp32 tells");
    return r;
  }

  int run_examples(const train::RunModel& m, const train::Recipe& recipe, Console& console) const {
    const std::int64_t window = seq_.value_or(std::min(m.model->context(), kLongestWindow));
    if (window > m.model->context())
      fail("eval", fmt::format("--seq {} given, at most the model's context of {} wanted", window, m.model->context()));
    std::optional<text::ChatTemplate> chat;
    const text::ChatSource source = [&]() -> const text::ChatTemplate* {
      if (!chat) chat = text::load_chat_template(template_.empty() ? m.chat : template_, *m.tokenizer);
      return chat ? &*chat : nullptr;
    };
    const text::ExampleSet set = text::read_examples(data_, *m.tokenizer, source, {.window = window, .skip_bad_lines = skip_bad_lines_});
    const text::ExampleBatchesOptions layout{
        .batch = batch_, .window = window, .pack = false, .shuffle = false, .padding = m.tokenizer->end_of_text().value_or(0)};
    const auto r =
        watched("batch", [&](const auto& on_batch) { return train::evaluate(*m.model, set, {.layout = layout, .recipe = recipe}, on_batch); });
    if (interrupted()) return interrupted_code();
    console.result({{"loss", r.loss},
                    {"perplexity", std::exp(r.loss)},
                    {"tokens", r.tokens},
                    {"precision", recipe.name},
                    {"seq", window},
                    {"stride", nullptr},
                    {"lines", set.counts.lines},
                    {"bad_lines", set.counts.bad_lines},
                    {"overlong", set.counts.overlong}});
    if (set.counts.bad_lines > 0)
      console.note(
          fmt::format("mezzo eval: {} of {} lines passed over; the first: {}", set.counts.bad_lines, set.counts.lines, set.counts.first_bad));
    if (!console.json())
      console.say(fmt::format("loss {:.4f}, perplexity {:.2f}, over the {} tokens that carry loss in {} lines ({})", r.loss, std::exp(r.loss),
                              format_count(r.tokens), format_count(set.counts.lines), recipe.name));
    return kSuccess;
  }

  std::filesystem::path model_, data_, template_;
  std::optional<std::int64_t> seq_;
  std::int64_t batch_ = 8, stride_ = 0;
  std::string precision_ = "auto";
  bool bos_ = false, chat_ = false, skip_bad_lines_ = false;
};

}  // namespace

const Command kEval{"eval", "Measures a model's loss on a text", [] { return std::unique_ptr<Task>(std::make_unique<Eval>()); }};

}  // namespace mezzo::cli
