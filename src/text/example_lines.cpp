// example_lines.cpp - examples from a JSONL file: a line to an example, an example to pieces that fit.
#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "core/parallel.h"
#include "io/file.h"
#include "io/shown.h"
#include "text/examples.h"
#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr std::string_view kOp = "data";
constexpr std::string_view kKinds = R"({"messages": [...]}, {"prompt": "...", "completion": "..."} or {"text": "..."} was expected)";

/// What is wrong with a line; where it stands is added by who knows.
[[noreturn]] void fail_line(const std::string& what) { throw Error(what); }

const std::string& text_of(const io::Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) fail_line(fmt::format("`{}` is missing, a string was expected", key));
  if (!found->is_string()) fail_line(fmt::format("`{}` is {}, a string was expected", key, found->type_name()));
  return found->get_ref<const std::string&>();
}

/// ShareGPT's turns as messages.
io::Json messages_of(const io::Json& conversations) {
  constexpr std::pair<std::string_view, std::string_view> kRoles[] = {
      {"human", "user"},          {"user", "user"},      {"gpt", "assistant"}, {"chatgpt", "assistant"},
      {"assistant", "assistant"}, {"bing", "assistant"}, {"system", "system"}, {"tool", "tool"}};
  if (!conversations.is_array()) fail_line(fmt::format("`conversations` is {}, an array was expected", conversations.type_name()));
  io::Json messages = io::Json::array();
  for (const io::Json& turn : conversations) {
    if (!turn.is_object())
      fail_line(fmt::format("turn {} is {}, an object with `from` and `value` was expected", messages.size() + 1, turn.type_name()));
    const std::string& from = text_of(turn, "from");
    const auto role = std::find_if(std::begin(kRoles), std::end(kRoles), [&](const auto& r) { return r.first == from; });
    if (role == std::end(kRoles))
      fail_line(fmt::format("turn {} is from \"{}\", human, gpt, system or tool was expected", messages.size() + 1, io::shown(from)));
    messages.push_back({{"role", role->second}, {"content", text_of(turn, "value")}});
  }
  return messages;
}

/// One line's example, before it is made to fit.
Example parsed(std::string_view line, const Tokenizer& tokenizer, const ChatTemplate* chat, TrainOn train_on) {
  if (const auto bad = find_invalid_utf8(line))
    fail_line(fmt::format("byte {} (0x{:02x}) is not UTF-8", *bad, static_cast<unsigned char>(line[*bad])));
  const io::Json json = io::parse_json(line, "line");
  if (!json.is_object()) fail_line(fmt::format("{}: {}", json.type_name(), kKinds));
  const bool messages = json.contains("messages"), conversations = json.contains("conversations");
  if (messages || conversations) {
    if (!chat) fail_line("a conversation, and the model has no chat template. Hint: --chat-template FILE gives it one");
    const auto tools = json.find("tools");
    return encode_chat(*chat, tokenizer, messages ? json["messages"] : messages_of(json["conversations"]),
                       {.tools = tools != json.end() && !tools->is_null() ? &*tools : nullptr, .train_on = train_on});
  }
  const bool pair = json.contains("prompt") || json.contains("completion");
  if (!pair && !json.contains("text")) {
    const auto first = json.begin();
    fail_line(fmt::format("{}: {}", first == json.end() ? "an object without members" : fmt::format("an object with `{}`", io::shown(first.key())),
                          kKinds));
  }
  const std::string& text = text_of(json, pair ? "completion" : "text");
  if (text.empty()) fail_line(fmt::format("`{}` is empty", pair ? "completion" : "text"));
  Example example = encode_completion(tokenizer, pair ? text_of(json, "prompt") : std::string(), text);
  if (train_on == TrainOn::everything) std::fill(example.counted.begin(), example.counted.end(), std::uint8_t{1});
  if (example.targets() == 0) fail_line("no token carries loss: there is nothing to learn");
  return example;
}

/// Tokens [begin, end).
Example piece(const Example& e, std::size_t begin, std::size_t end) {
  const auto part = [&](const auto& all) {
    return std::remove_cvref_t<decltype(all)>(all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end));
  };
  return {part(e.ids), part(e.counted), e.line};
}

void add(ExampleSet& set, Example example) {
  if (example.targets() > 0) set.examples.push_back(std::move(example));
  else ++set.counts.dropped;
}

/// Puts an example into the set, made to fit.
void add_fitting(ExampleSet& set, Example example, const ExampleOptions& options) {
  const auto most = static_cast<std::size_t>(options.window) + 1;
  if (example.ids.size() <= most) return add(set, std::move(example));
  ++set.counts.overlong;
  if (options.overlong == Overlong::drop) ++set.counts.dropped;
  if (options.overlong == Overlong::cut) add(set, piece(example, 0, most));
  if (options.overlong == Overlong::split)
    for (std::size_t begin = 0; begin + 1 < example.ids.size(); begin += most - 1)
      add(set, piece(example, begin, std::min(begin + most, example.ids.size())));
}

struct Line {
  std::int64_t number;
  std::string_view text;
};

std::vector<Line> lines_of(std::string_view jsonl) {
  std::vector<Line> out;
  if (jsonl.starts_with("\xEF\xBB\xBF")) jsonl.remove_prefix(3);  // a byte order mark
  for (std::int64_t number = 1; !jsonl.empty(); ++number) {
    const std::string_view line = jsonl.substr(0, jsonl.find('\n'));
    if (line.find_first_not_of(" \t\r") != line.npos) out.push_back({number, line});
    jsonl.remove_prefix(std::min(jsonl.size(), line.size() + 1));
  }
  return out;
}

/// An Error of one line as one of the file: "path:line: what", or "path:line:column: what" for malformed JSON.
std::string placed(std::string_view source, std::int64_t number, std::string_view what) {
  constexpr std::string_view kInLine = "line:1:";
  if (what.starts_with('[')) what.remove_prefix(std::min(what.size(), what.find("] ") + 2));
  if (what.ends_with('.')) what.remove_suffix(1);
  const bool column = what.starts_with(kInLine);
  if (column) what.remove_prefix(kInLine.size());
  return fmt::format("{}:{}:{}{}", source, number, column ? "" : " ", what);
}

}  // namespace

ExampleSet parse_examples(std::string_view jsonl, std::string_view source, const Tokenizer& tokenizer, const ChatTemplate* chat,
                          const ExampleOptions& options) {
  if (options.window < 1) fail(kOp, fmt::format("a window of {} tokens, at least 1 was expected", options.window));
  const std::vector<Line> lines = lines_of(jsonl);
  // Lines are independent; what becomes of them is put together in their order, whatever the number of threads.
  struct Outcome {
    Example example;
    std::string trouble;
  };
  std::vector<Outcome> outcomes(lines.size());
  parallel_for(static_cast<std::int64_t>(lines.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      try {
        outcomes[i].example = parsed(lines[i].text, tokenizer, chat, options.train_on);
        outcomes[i].example.line = lines[i].number;
      } catch (const Error& e) { outcomes[i].trouble = placed(source, lines[i].number, e.what()); }
    }
  });

  ExampleSet set;
  set.counts.lines = static_cast<std::int64_t>(lines.size());
  for (Outcome& o : outcomes) {
    if (o.trouble.empty()) {
      add_fitting(set, std::move(o.example), options);
      continue;
    }
    if (!options.skip_bad_lines)
      fail(kOp, o.trouble,
           o.trouble.find("Hint: ") == o.trouble.npos ? "skip_bad_lines (--skip-bad-lines) passes over such lines and counts them" : "");
    if (set.counts.bad_lines++ == 0) set.counts.first_bad = o.trouble;
  }
  const ExampleCounts& c = set.counts;
  if (set.examples.empty())
    fail(kOp, fmt::format("{}: no example is left of {} lines: {} bad, {} longer than the window of {} tokens, {} dropped{}{}", source, c.lines,
                          c.bad_lines, c.overlong, options.window, c.dropped, c.first_bad.empty() ? "" : "; the first: ", c.first_bad));
  return set;
}

ExampleSet parse_examples(std::string_view jsonl, std::string_view source, const Tokenizer& tokenizer, const ChatSource& chat,
                          const ExampleOptions& options) {
  // A key of this name has its quotes bare; in a text they would be escaped.
  const bool conversations = jsonl.find("\"messages\"") != jsonl.npos || jsonl.find("\"conversations\"") != jsonl.npos;
  return parse_examples(jsonl, source, tokenizer, conversations ? chat() : nullptr, options);
}

ExampleSet read_examples(const std::filesystem::path& path, const Tokenizer& tokenizer, const ChatTemplate* chat, const ExampleOptions& options) {
  return parse_examples(io::read_file(path), path.native(), tokenizer, chat, options);
}
ExampleSet read_examples(const std::filesystem::path& path, const Tokenizer& tokenizer, const ChatSource& chat, const ExampleOptions& options) {
  return parse_examples(io::read_file(path), path.native(), tokenizer, chat, options);
}

}  // namespace mezzo::text
