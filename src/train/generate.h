// generate.h - text from a model and its tokenizer.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/models.h>
#include <mezzo/text.h>
#include <mezzo/train.h>

namespace mezzo::train {

/// The ids of a text that a model continues: with the token before it that the model expects.
std::vector<std::int32_t> prompt_ids(const Tokenizer&, std::string_view text);

/// A message put to a model with a chat template: the conversation up to where the answer begins.
struct ChatPrompt {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> stop;  ///< the token that ends a turn of the assistant, where the template has one
};
/// `chat`: where the template is, a model or a template's file; system: empty for the template's own. Error if there is none, or it cannot be
/// rendered exactly.
ChatPrompt chat_prompt(const std::filesystem::path& chat, const Tokenizer&, const std::string& message, const std::string& system = {});

struct Generated {
  std::string text;                       ///< UTF-8, without marks
  std::int64_t tokens = 0;                ///< made, without the one that ended the text
  bool ended = false;                     ///< by a token that ends texts
  double first_seconds = 0, seconds = 0;  ///< to the first token (the prompt is read), and of the others
  double tokens_per_second() const { return tokens > 1 && seconds > 0 ? static_cast<double>(tokens - 1) / seconds : 0; }
};
/// Continues `prompt` under the recipe's autocast, to the tokenizer's end of text, one of o.stop, or o.max_tokens. `on_text` (may be empty) sees the
/// text as it comes, and ends it by returning false.
Generated generate(models::LanguageModel&, const Tokenizer&, const std::vector<std::int32_t>& prompt, models::SampleOptions o, const Recipe&,
                   const std::function<bool(std::string_view)>& on_text = {});

}  // namespace mezzo::train
