// chat_template.h - how a model's conversations are written as text: the template that comes with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <mezzo/text.h>

#include "io/json.h"
#include "text/jinja.h"

namespace mezzo::text {

struct ChatTemplateOptions {
  std::optional<std::string> bos_token = {}, eos_token = {};  ///< what the template's variables of these names hold; none: undefined
  std::string name = "chat template";                         ///< where it comes from, for errors
  std::int64_t now = 0;  ///< the time some templates write a date of, in seconds since 1970; 0: when this was built
};

/// Immutable; any number of threads may use one.
class ChatTemplate {
 public:
  /// Error that names line and construct for what cannot be rendered exactly (jinja.h).
  explicit ChatTemplate(std::string source, ChatTemplateOptions = {});

  struct RenderOptions {
    bool add_generation_prompt = false;  ///< ends with what the assistant's turn begins with
    const io::Json* tools = nullptr;     ///< an array of the tools' descriptions; null: none
  };
  /// `messages`: an array of objects with role and content, and what else the template understands (tool_calls, name, reasoning_content ...).
  std::string render(const io::Json& messages, const RenderOptions& options) const;
  std::string render(const io::Json& messages) const { return render(messages, RenderOptions{}); }

  struct Marked {
    std::string text;
    std::vector<JinjaTemplate::Span> assistant;  ///< offsets in text, in order, not empty, apart from each other
  };
  /// The whole conversation, and where in it the assistant writes: what {% generation %} blocks hold where the template has them; else of every turn
  /// whose role is "assistant" the text from the end of what comes before it (rendered with a generation prompt) to its own end, end token
  /// included. Error that names the turn (counted from 1) if it is empty, or if the text up to there does not go on in the whole conversation:
  /// templates that rewrite earlier turns cannot be told apart this way.
  Marked render_marked(const io::Json& messages, const io::Json* tools = nullptr) const;

  const std::string& source() const noexcept { return source_; }
  std::int64_t now() const noexcept { return options_.now; }

 private:
  JinjaTemplate::Result rendered(const io::Json& messages, const RenderOptions&) const;
  std::string source_;
  ChatTemplateOptions options_;
  JinjaTemplate jinja_;
};

/// The template of a model: a directory in Hugging Face's layout (chat_template.jinja, or `chat_template` of tokenizer_config.json: a string, or
/// named ones of which "default" is taken) or a tokenizer's file in it, a GGUF file (tokenizer.chat_template); any other file is a template itself.
/// None: it has no template. `tokenizer` is the model's: its begin and end are bos_token and eos_token.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path&, const Tokenizer& tokenizer, std::int64_t now = 0);

/// The text of the template that load_chat_template() would find. Error where there is none.
std::string read_chat_template(const std::filesystem::path&);

}  // namespace mezzo::text
