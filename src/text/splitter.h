// splitter.h - cuts text into the words within which tokens are merged ("pre-tokenization").
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "text/regex.h"

namespace mezzo::text {

/// Steps, each of which cuts the pieces of the one before into matches of a pattern and what lies between them. Nothing is lost: the pieces
/// joined are the text.
class Splitter {
 public:
  Splitter() = default;
  void add(Regex step) { steps_.push_back(std::move(step)); }
  bool splits_nothing() const noexcept { return steps_.empty(); }
  const std::vector<Regex>& steps() const noexcept { return steps_; }
  /// Appends the pieces of text (valid UTF-8), in order.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  std::vector<Regex> steps_;
};

/// The pattern of GPT-2's encoder, which tokenizer files call ByteLevel.
inline constexpr std::string_view kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
/// Tokenizer files call it Digits with individual_digits.
inline constexpr std::string_view kDigitPattern = R"(\p{N})";

/// The splitter that GGUF's `tokenizer.ggml.pre` names: gpt-2, llama-bpe, smollm, qwen2 and their aliases. Error that lists them otherwise.
Splitter splitter_of_gguf(std::string_view pre, std::string_view source);
/// The name that has it there. Error if none has.
std::string_view gguf_name(const Splitter&, std::string_view source);
/// Whether a whole word that is a token is taken as it is, whatever the merges would make of it (Llama 3).
bool gguf_ignores_merges(std::string_view pre);

}  // namespace mezzo::text
