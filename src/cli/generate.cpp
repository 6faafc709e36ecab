// generate.cpp - `mezzo generate`: a model continues a text.
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/models.h"
#include "cli/options.h"
#include "cli/stop.h"
#include "core/fail.h"
#include "text/utf8.h"
#include "train/generate.h"
#include "train/run_model.h"

namespace mezzo::cli {
namespace {

class Generate final : public Task {
 public:
  void declare(Options& o) override {
    o.usage("--model DIR|FILE.gguf --prompt TEXT [options]");
    o.footer("example: mezzo generate --model runs/book --prompt \"It was\" --max-tokens 300 --temperature 0.7");
    o.group("what is generated");
    o.value("--model", "DIR|FILE", model_, kModelHelp);
    o.value("--prompt", "TEXT", prompt_, "What is continued");
    o.value("--max-tokens", "N", s_.max_tokens, "Tokens to make at most");
    o.value("--temperature", "X", s_.temperature, "0: always the likeliest token");
    o.value("--top-k", "K", s_.top_k, "Only the K likeliest tokens; 0: all");
    o.value("--top-p", "P", s_.top_p, "Of these the fewest that hold this share of the probability");
    o.value("--repetition-penalty", "X", s_.repetition_penalty, "Makes tokens that are there already less likely; 1: does not");
    o.value("--seed", "S", s_.seed, "Of the draws");
    o.value("--precision", "P", precision_, asked_precisions());
    o.flag("--chat", chat_, "The prompt is a message, which the model answers: for models with a chat template");
    o.value("--chat-template", "FILE", template_, "With --chat: a Jinja template instead of the model's own");
    o.value("--system", "TEXT", system_, "With --chat: what the conversation begins with, instead of the template's own");
  }

  int run(Options& options, Console& console) override {
    checking_usage([&] {
      options.require("--model", "a run directory or a model");
      options.require("--prompt", "a text to continue");
      if (prompt_.empty())
        fail("generate", "--prompt is empty, a text to continue wanted",
             "a model of bytes continues a line break, --prompt $'\\n', as if from the start");
      if (text::find_invalid_utf8(prompt_)) fail("generate", "--prompt is not UTF-8");
      if (s_.max_tokens < 1) fail("generate", fmt::format("--max-tokens {} given, 1 or more wanted", s_.max_tokens));
      if (s_.temperature < 0) fail("generate", fmt::format("--temperature {} given, 0 or more wanted", s_.temperature));
      if (s_.top_k < 0) fail("generate", fmt::format("--top-k {} given, 0 or more wanted", s_.top_k));
      if (!(s_.top_p > 0 && s_.top_p <= 1)) fail("generate", fmt::format("--top-p {} given, a share above 0 and up to 1 wanted", s_.top_p));
      if (!(s_.repetition_penalty > 0))
        fail("generate", fmt::format("--repetition-penalty {} given, a number above 0 wanted", s_.repetition_penalty));
      for (const char* o : {"--system", "--chat-template"})
        if (!chat_ && options.given(o)) fail("generate", fmt::format("{} given without --chat, with which it goes", o));
      train::recipe(precision_);
    });
    const train::Recipe recipe = train::recipe_for_asking(precision_, model_);
    const train::RunModel m = train::load_run_model(model_, for_inference(recipe));
    catch_interrupts("mezzo generate: stopping");

    std::vector<std::int32_t> ids;
    if (chat_) {
      train::ChatPrompt chat =
          checking_usage([&] { return train::chat_prompt(template_.empty() ? m.chat : template_, *m.tokenizer, prompt_, system_); });
      ids = std::move(chat.ids);
      s_.stop = std::move(chat.stop);
    } else {
      ids = train::prompt_ids(*m.tokenizer, prompt_);
      console.stream(prompt_);
    }
    if (const auto context = m.model->context(); std::ssize(ids) > context)
      console.note(
          fmt::format("mezzo generate: the prompt has {} tokens, the model's context {}: it sees the last of them only", ids.size(), context));
    const train::Generated made = train::generate(*m.model, *m.tokenizer, ids, s_, recipe, [&](std::string_view piece) {
      console.stream(piece);
      return !interrupted() && console.open();
    });
    console.stream("\n");
    if (interrupted()) return interrupted_code();
    console.result({{"prompt", prompt_},
                    {"text", made.text},
                    {"prompt_tokens", ids.size()},
                    {"tokens", made.tokens},
                    {"end_of_text", made.ended},
                    {"seconds_to_first_token", made.first_seconds},
                    {"tokens_per_second", made.tokens_per_second()}});
    return kSuccess;
  }

 private:
  std::filesystem::path model_, template_;
  std::string prompt_, system_, precision_ = "auto";
  models::SampleOptions s_;
  bool chat_ = false;
};

}  // namespace

const Command kGenerate{"generate", "Continues a text with a model", [] { return std::unique_ptr<Task>(std::make_unique<Generate>()); }};

}  // namespace mezzo::cli
