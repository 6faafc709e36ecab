// examples.h - what a model is fine-tuned on: conversations and texts of a JSONL file as tokens, with the tokens that carry loss.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/text.h>

#include "io/json.h"
#include "text/chat_template.h"

namespace mezzo::text {

/// One document. A token carries loss as a target, that is where the one before it is the input: the first never does.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> counted;  ///< 1: the token carries loss
  std::int64_t line = 0;              ///< of the file, counted from 1; pieces of one line share it

  /// Inputs in a row: the last token is a target only.
  std::int64_t length() const noexcept { return static_cast<std::int64_t>(ids.size()) - 1; }
  /// Targets that carry loss.
  std::int64_t targets() const noexcept;
};

enum class TrainOn : std::uint8_t { assistant, everything };  // everything: the prompts too

struct ChatEncoding {
  const io::Json* tools = nullptr;  ///< an array of the tools' descriptions; null: none
  TrainOn train_on = TrainOn::assistant;
};
/// The conversation as the template writes it, in tokens (beginning and end tokens where the template writes them, none added). A token carries loss
/// if it ends inside what the assistant wrote: one that begins before (a space drawn into the answer's first word) does, one that ends behind does
/// not. Errors of ChatTemplate::render_marked, and one if no token carries loss.
Example encode_chat(const ChatTemplate&, const Tokenizer&, const io::Json& messages, const ChatEncoding& = {});

/// Prompt and completion as one text, begin token before it where the model expects it, end token after it where the vocabulary has one. The
/// completion's tokens (as above) and the end token carry loss.
Example encode_completion(const Tokenizer&, std::string_view prompt, std::string_view completion);

enum class Overlong : std::uint8_t {
  split,  ///< into pieces that fit, each beginning with the last token of the one before, so that no target is lost
  cut,    ///< to its beginning
  drop,
};

struct ExampleOptions {
  std::int64_t window = 1024;  ///< T, inputs of an example at most: it has at most T + 1 tokens
  Overlong overlong = Overlong::split;
  bool skip_bad_lines = false;  ///< counts lines that cannot be used; else the first is an Error
  TrainOn train_on = TrainOn::assistant;
};

struct ExampleCounts {
  std::int64_t lines = 0;      ///< that are not blank
  std::int64_t bad_lines = 0;  ///< passed over
  std::int64_t overlong = 0;   ///< lines longer than the window, whatever became of them
  std::int64_t dropped = 0;    ///< examples and pieces left out: too long for Overlong::drop, or without loss after a cut
  std::string first_bad;       ///< the message for the first bad line
};

struct ExampleSet {
  std::vector<Example> examples;  ///< in the file's order; each has a target that carries loss
  ExampleCounts counts;

  std::int64_t tokens() const noexcept;   ///< inputs of all examples
  std::int64_t targets() const noexcept;  ///< that carry loss
  /// Of all ids and marks, in order: the same examples give the same number.
  std::uint64_t fingerprint() const;
};

/// The examples of a JSONL file, one object a line, blank lines passed over:
///   {"messages": [{"role", "content", ...}, ...], "tools": [...]}      a conversation; loss on the assistant's turns
///   {"conversations": [{"from": "human"|"gpt"|..., "value"}, ...]}     the same as ShareGPT has it
///   {"prompt": "...", "completion": "..."}                             loss on the completion
///   {"text": "..."}                                                    loss on all of it
/// `chat` may be null if there are no conversations. One that makes it is called where there are some, and only there. Error "[data] file:line: what
/// it is, what was expected" for the first line that cannot be used unless they are skipped, and if no example is left.
ExampleSet read_examples(const std::filesystem::path&, const Tokenizer&, const ChatTemplate* chat, const ExampleOptions& = {});
using ChatSource = std::function<const ChatTemplate*()>;
ExampleSet read_examples(const std::filesystem::path&, const Tokenizer&, const ChatSource& chat, const ExampleOptions& = {});
/// The same of text in memory; `source` stands for the path.
ExampleSet parse_examples(std::string_view jsonl, std::string_view source, const Tokenizer&, const ChatTemplate* chat, const ExampleOptions& = {});
ExampleSet parse_examples(std::string_view jsonl, std::string_view source, const Tokenizer&, const ChatSource& chat, const ExampleOptions& = {});

struct ExampleSplit {
  ExampleSet train, held_out;
};
/// Holds out that fraction of the lines (rounded, at least one and not all), chosen by the seed alone; pieces of one line stay together, both parts
/// keep the order, counts go to `train`. Error if the fraction is not in (0, 1) or there are less than two lines.
ExampleSplit split(ExampleSet, double fraction, std::uint64_t seed);

}  // namespace mezzo::text
