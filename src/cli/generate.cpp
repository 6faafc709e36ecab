// generate.cpp - `mezzo generate`: a model continues a text.
#include <chrono>

#include <nlohmann/json.hpp>

#include <mezzo/amp.h>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/options.h"
#include "cli/stop.h"
#include "core/fail.h"
#include "text/utf8.h"
#include "train/trainer.h"

namespace mezzo::cli {
namespace {

class Generate final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--model DIR --prompt TEXT [options]");
    o.footer("example: mezzo generate --model runs/book --prompt \"It was\" --max-tokens 300 --temperature 0.7");
    o.group("what is generated");
    o.value("--model", "DIR", model_, "A run directory of mezzo train, or one in Hugging Face's layout");
    o.value("--prompt", "TEXT", prompt_, "What is continued");
    o.value("--max-tokens", "N", s_.max_tokens, "Tokens to make at most");
    o.value("--temperature", "X", s_.temperature, "0: always the likeliest token");
    o.value("--top-k", "K", s_.top_k, "Only the K likeliest tokens; 0: all");
    o.value("--seed", "S", s_.seed, "Of the draws");
    o.value("--precision", "P", precision_, "auto, fp32, bf16, fp16");
    o.flag("--chat", chat_, "The prompt is a chat message: for models with a chat template");
  }

  int run(Options& options, Console& console) override {
    const train::Recipe recipe = checking_usage([&] {
      options.require("--model", "a run directory");
      options.require("--prompt", "a text to continue");
      if (prompt_.empty())
        fail("generate", "--prompt is empty, a text to continue wanted",
             "a model of bytes continues a line break, --prompt $'\\n', as if from the start");
      if (text::find_invalid_utf8(prompt_)) fail("generate", "--prompt is not UTF-8");
      if (s_.max_tokens < 1) fail("generate", fmt::format("--max-tokens {} given, 1 or more wanted", s_.max_tokens));
      if (s_.temperature < 0) fail("generate", fmt::format("--temperature {} given, 0 or more wanted", s_.temperature));
      if (s_.top_k < 0) fail("generate", fmt::format("--top-k {} given, 0 or more wanted", s_.top_k));
      return train::recipe(precision_);
    });
    const train::RunModel m = train::load_run_model(model_);
    if (chat_)
      throw UsageError(
          fmt::format("[generate] --chat given, but {} is a {}-level model of plain text: it knows no chat turns. Hint: leave --chat out, the prompt "
                      "is continued",
                      m.source.native(), m.tokenizer->kind()));
    catch_interrupts("mezzo generate: stopping");

    StreamDecoder decoder(*m.tokenizer);
    std::string text;
    std::int64_t tokens = 0;
    const auto put = [&](const std::string& piece) {
      text += piece;
      console.stream(piece);
    };
    console.stream(prompt_);
    const auto begin = std::chrono::steady_clock::now();
    {
      const amp::Autocast region(recipe.low, {.enabled = recipe.autocast});
      models::sample(*m.model, m.tokenizer->encode(prompt_), s_, [&](std::int32_t id) {
        if (id == m.tokenizer->end_of_text()) return false;
        ++tokens;
        if (!m.tokenizer->is_special(id)) put(decoder.push(id));
        return !interrupted() && console.open();
      });
    }
    put(decoder.finish());
    console.stream("\n");
    if (interrupted()) return interrupted_code();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    console.result({{"prompt", prompt_}, {"text", text}, {"tokens", tokens}, {"tokens_per_second", static_cast<double>(tokens) / seconds}});
    return kSuccess;
  }

 private:
  std::filesystem::path model_;
  std::string prompt_, precision_ = "auto";
  models::SampleOptions s_;
  bool chat_ = false;
};

}  // namespace

const Command kGenerate{"generate", "Continues a text with a model", [] { return std::unique_ptr<Task>(std::make_unique<Generate>()); }};

}  // namespace mezzo::cli
