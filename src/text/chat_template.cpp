// chat_template.cpp - conversations as text.
#include "text/chat_template.h"

#include <algorithm>
#include <ctime>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/file.h"
#include "io/gguf.h"
#include "io/shown.h"
#include "text/jinja_text.h"

namespace mezzo::text {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOp = "chat template";

/// The messages without members that are null: templates ask whether they are there.
io::Json checked_messages(const io::Json& messages) {
  if (!messages.is_array()) fail(kOp, fmt::format("messages are {}, an array of objects was expected", messages.type_name()));
  io::Json out = io::Json::array();
  for (const io::Json& message : messages) {
    const std::size_t turn = out.size() + 1;
    if (!message.is_object()) fail(kOp, fmt::format("turn {} is {}, an object with role and content was expected", turn, message.type_name()));
    if (const auto role = message.find("role"); role == message.end() || !role->is_string()) fail(kOp, fmt::format("turn {} has no role", turn));
    if (const auto content = message.find("content"); content != message.end() && (content->is_number() || content->is_boolean()))
      fail(kOp, fmt::format("turn {}: `content` is {}, a string was expected", turn, content->type_name()));
    io::Json& kept = out.emplace_back(io::Json::object());
    for (const auto& [key, value] : message.items())
      if (!value.is_null()) kept[key] = value;
  }
  return out;
}

/// In a handler: why a template cannot write these messages. The first that has no text is named, unless the template says why itself.
[[noreturn]] void fail_rendering(const io::Json& messages, const Error& e) {
  const bool own_words = std::string_view(e.what()).find("the template refuses this") != std::string_view::npos;
  for (std::size_t i = 0; !own_words && i < messages.size(); ++i) {
    const auto content = messages[i].find("content");
    if (content != messages[i].end() && content->is_string()) continue;
    const std::string_view given = content == messages[i].end() ? "missing" : content->type_name();
    std::string_view why = e.what();
    if (why.ends_with('.')) why.remove_suffix(1);
    fail(kOp, fmt::format("turn {}: `content` is {}, a string was expected by this template: {}", i + 1, given, why));
  }
  throw;
}

bool is_assistant(const io::Json& message) { return message.at("role") == "assistant"; }

/// Neither content that is more than space, nor anything else that is said: calls, reasoning.
bool is_empty(const io::Json& message) {
  return std::all_of(message.items().begin(), message.items().end(), [](const auto& member) {
    const io::Json& value = member.value();
    return member.key() == "role" || member.key() == "name" ||
           (value.is_string() ? strip_left(value.template get_ref<const std::string&>()).empty() : value.empty());
  });
}

/// The first line in which two texts differ, of both.
std::string difference(std::string_view given, std::string_view whole) {
  const auto at = static_cast<std::size_t>(std::mismatch(given.begin(), given.end(), whole.begin(), whole.end()).first - given.begin());
  const auto shown = [&](std::string_view text) {
    return at < text.size() ? fmt::format("`{}`", io::shown(text.substr(at, 40))) : std::string("its end");
  };
  return fmt::format("from byte {} on {} there, {} in the whole", at, shown(given), shown(whole));
}

}  // namespace

ChatTemplate::ChatTemplate(std::string source, ChatTemplateOptions options)
    : source_(std::move(source)), options_(std::move(options)), jinja_(source_, options_.name) {
  if (options_.now == 0) options_.now = std::time(nullptr);
}

JinjaTemplate::Result ChatTemplate::rendered(const io::Json& messages, const RenderOptions& options) const {
  io::Json variables = {{"messages", messages},
                        {"tools", options.tools ? *options.tools : io::Json()},
                        {"documents", nullptr},
                        {"add_generation_prompt", options.add_generation_prompt}};
  if (options_.bos_token) variables["bos_token"] = *options_.bos_token;
  if (options_.eos_token) variables["eos_token"] = *options_.eos_token;
  try {
    return jinja_.render(variables, {.now = options_.now});
  } catch (const Error& e) { fail_rendering(messages, e); }
}

std::string ChatTemplate::render(const io::Json& messages, const RenderOptions& options) const {
  return rendered(checked_messages(messages), options).text;
}

ChatTemplate::Marked ChatTemplate::render_marked(const io::Json& given, const io::Json* tools) const {
  const io::Json messages = checked_messages(given);
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (is_assistant(messages[i]) && is_empty(messages[i])) fail(kOp, fmt::format("turn {}, of the assistant, is empty", i + 1));
  JinjaTemplate::Result whole = rendered(messages, {.tools = tools});
  std::vector<JinjaTemplate::Span> assistant = std::move(whole.generation);
  if (!jinja_.marks_generation()) {
    io::Json before = io::Json::array();
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const auto end_of = [&](bool prompt) {
        std::string part;
        try {
          part = rendered(before, {.add_generation_prompt = prompt, .tools = tools}).text;
        } catch (const Error& e) {
          std::string_view why = e.what();
          if (why.ends_with('.')) why.remove_suffix(1);
          fail(kOp, fmt::format("turn {}: where it {} is not known: {}", i + 1, prompt ? "begins" : "ends", why));
        }
        if (!whole.text.starts_with(part))
          fail(kOp,
               fmt::format("turn {}: the text of the conversation up to {} is not how the whole conversation begins: {}", i + 1,
                           prompt ? "its beginning" : "its end", difference(part, whole.text)),
               "this template rewrites earlier turns: give it {% generation %} marks, or one answer a line, or train on everything");
        return static_cast<std::int64_t>(part.size());
      };
      const bool answer = is_assistant(messages[i]);
      const std::int64_t begin = answer ? end_of(true) : 0;
      before.push_back(messages[i]);
      if (answer) assistant.push_back({begin, end_of(false)});
    }
  }
  std::erase_if(assistant, [](const JinjaTemplate::Span& s) { return s.begin >= s.end; });
  return {std::move(whole.text), std::move(assistant)};
}

// ---- loading -------------------------------------------------------------------------------------

namespace {

/// `chat_template` of tokenizer_config.json.
std::optional<std::string> from_config(const fs::path& file) {
  const io::Json config = io::read_json(file);
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  std::string names;
  if (found->is_array())
    for (const io::Json& named : *found) {
      const std::string name = named.value("name", ""), text = named.value("template", "");
      if (name == "default") return text;
      names += fmt::format("{}`{}`", names.empty() ? "" : ", ", io::shown(name));
    }
  fail(kOp, fmt::format("{}: chat_template is {}, a string or a list with a template named `default` was expected", file.native(),
                        names.empty() ? found->type_name() : "a list of " + names));
}

std::optional<std::string> from_directory(const fs::path& directory, fs::path& file) {
  std::error_code ignored;
  if (file = directory / "chat_template.jinja"; fs::is_regular_file(file, ignored)) return io::read_file(file);
  if (file = directory / "tokenizer_config.json"; fs::is_regular_file(file, ignored)) return from_config(file);
  return std::nullopt;
}

/// `file` becomes where it is. None: there is none.
std::optional<std::string> source_of(const fs::path& path, fs::path& file) {
  file = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return from_directory(path, file);
  if (path.filename() == "tokenizer_config.json") return from_config(path);
  if (path.extension() == ".json" || path.extension() == ".model") return from_directory(path.parent_path(), file);  // of a model's tokenizer
  if (!io::MappedFile(path).text().starts_with("GGUF")) return io::read_file(path);
  const io::GgufFile gguf(path);
  return gguf.field("tokenizer.chat_template") ? std::optional(std::string(gguf.string("tokenizer.chat_template"))) : std::nullopt;
}

}  // namespace

std::string read_chat_template(const fs::path& path) {
  fs::path file;
  auto source = source_of(path, file);
  if (!source) fail(kOp, fmt::format("{}: it holds no chat template", path.native()), "a file with a Jinja template is wanted");
  return std::move(*source);
}

std::optional<ChatTemplate> load_chat_template(const fs::path& path, const Tokenizer& tokenizer, std::int64_t now) {
  fs::path file;
  auto source = source_of(path, file);
  if (!source) return std::nullopt;
  const auto text_of = [&](std::optional<std::int32_t> id) { return id ? std::optional<std::string>(tokenizer.bytes_of(*id)) : std::nullopt; };
  return ChatTemplate(
      std::move(*source),
      {.bos_token = text_of(tokenizer.begin_of_text()), .eos_token = text_of(tokenizer.end_of_text()), .name = file.native(), .now = now});
}

}  // namespace mezzo::text
