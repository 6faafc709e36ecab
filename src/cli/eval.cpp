// eval.cpp - `mezzo eval`: the mean loss a token of a model over a text.
#include <cmath>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"
#include "cli/models.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/stop.h"
#include "core/fail.h"
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
    o.value("--data", "FILE|DIR", data_, "Text: a file, or a directory of text files");
    o.value("--seq", "T", seq_, "Tokens of a window; without it the model's context, at most 2048");
    o.value("--stride", "S", stride_, "Tokens from one window to the next, up to T; 0: T");
    o.value("--batch", "B", batch_, "Windows at once");
    o.value("--precision", "P", precision_, "auto, fp32, bf16, fp16");
    o.flag("--bos", bos_, "The beginning-of-text token before each window");
  }

  int run(Options& options, Console& console) override {
    const train::Recipe recipe = checking_usage([&] {
      options.require("--model", "a run directory or a model");
      options.require("--data", "a text file");
      if (batch_ < 1) fail("eval", fmt::format("--batch {} given, 1 or more wanted", batch_));
      if (seq_ && *seq_ < 1) fail("eval", fmt::format("--seq {} given, 1 or more wanted", *seq_));
      if (stride_ < 0) fail("eval", fmt::format("--stride {} given, 0 or more wanted", stride_));
      if (seq_ && stride_ > *seq_) fail("eval", fmt::format("--stride {} given, at most --seq {} wanted", stride_, *seq_));
      return train::recipe(precision_);
    });
    const train::RunModel m = train::load_run_model(model_, for_inference(recipe));
    const auto begin_of_text = bos_ ? m.tokenizer->begin_of_text() : std::nullopt;
    if (bos_ && !begin_of_text)
      throw UsageError(fmt::format("[eval] --bos given, but the {} tokenizer of {} has no such token", m.tokenizer->kind(), m.source.native()));
    const std::int64_t seq = seq_.value_or(std::min(m.model->context() - (bos_ ? 1 : 0), kLongestWindow));
    const text::Corpus corpus(data_, *m.tokenizer, {.seq = seq, .val_fraction = 0, .end_of_text = false});
    catch_interrupts("mezzo eval: stopping");

    ProgressLine progress;
    const auto begin = std::chrono::steady_clock::now();
    const train::EvalResult r =
        train::evaluate(*m.model, corpus.train(), {.batch = batch_, .seq = seq, .stride = stride_, .begin = begin_of_text, .recipe = recipe},
                        [&](std::int64_t done, std::int64_t all) {
                          if (progress.due()) progress.update(describe_share("window", done, all, begin));
                          return !interrupted();
                        });
    progress.clear();
    if (interrupted()) return interrupted_code();
    console.result({{"loss", r.loss}, {"perplexity", std::exp(r.loss)}, {"tokens", r.tokens}});
    if (!console.json())
      console.say(fmt::format("loss {:.4f}, perplexity {:.2f}, over {} tokens in windows of {} ({})", r.loss, std::exp(r.loss),
                              format_count(r.tokens), seq, recipe.name));
    return kSuccess;
  }

 private:
  std::filesystem::path model_, data_;
  std::optional<std::int64_t> seq_;
  std::int64_t batch_ = 8, stride_ = 0;
  std::string precision_ = "auto";
  bool bos_ = false;
};

}  // namespace

const Command kEval{"eval", "Measures a model's loss on a text", [] { return std::unique_ptr<Task>(std::make_unique<Eval>()); }};

}  // namespace mezzo::cli
