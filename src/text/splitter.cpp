// splitter.cpp - cutting by patterns, and the patterns that models were trained with.
#include "text/splitter.h"

#include <algorithm>
#include <array>
#include <iterator>

#include <fmt/core.h>

#include "core/fail.h"

namespace mezzo::text {

namespace {

// Published with the models, in the tokenizer.json files of Llama 3 and Qwen2; SmolLM2's cuts digits off one by one and then does as GPT-2.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct Known {
  std::string_view name;
  std::array<std::string_view, 2> patterns;
};
constexpr Known kKnown[] = {{"gpt-2", {kGpt2Pattern}},       {"default", {kGpt2Pattern}},  {"smollm", {kDigitPattern, kGpt2Pattern}},
                            {"llama-bpe", {kLlama3Pattern}}, {"llama3", {kLlama3Pattern}}, {"llama-v3", {kLlama3Pattern}},
                            {"qwen2", {kQwen2Pattern}}};

}  // namespace

void Splitter::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  if (text.empty()) return;
  if (steps_.empty()) return pieces.push_back(text);
  std::vector<std::string_view> before{text}, after;
  for (std::size_t s = 0; s < steps_.size(); ++s) {
    std::vector<std::string_view>& out = s + 1 == steps_.size() ? pieces : after;
    for (const std::string_view piece : before) {
      std::size_t done = 0;
      for (std::size_t from = 0; from < piece.size();) {
        const auto match = steps_[s].find(piece, from);
        if (!match) break;
        if (match->begin == match->end) {  // an empty match cuts nothing: on, by a code point
          from = match->end + 1;
          while (from < piece.size() && (piece[from] & 0xC0) == 0x80) ++from;
          continue;
        }
        if (match->begin > done) out.push_back(piece.substr(done, match->begin - done));
        out.push_back(piece.substr(match->begin, match->end - match->begin));
        from = done = match->end;
      }
      if (done < piece.size()) out.push_back(piece.substr(done));
    }
    before = std::move(after);
    after.clear();
  }
}

Splitter splitter_of_gguf(std::string_view pre, std::string_view source) {
  const auto known = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& k) { return k.name == pre; });
  if (known == std::end(kKnown))
    fail("tokenizer", fmt::format("{}: tokenizer.ggml.pre is \"{}\", one of gpt-2, llama-bpe, smollm, qwen2 was expected", source, pre));
  Splitter out;
  for (const std::string_view pattern : known->patterns)
    if (!pattern.empty()) out.add(Regex(pattern, source));
  return out;
}

std::string_view gguf_name(const Splitter& splitter, std::string_view source) {
  for (const Known& k : kKnown) {
    std::vector<std::string_view> patterns;
    for (const std::string_view p : k.patterns)
      if (!p.empty()) patterns.push_back(p);
    if (std::equal(patterns.begin(), patterns.end(), splitter.steps().begin(), splitter.steps().end(),
                   [](std::string_view p, const Regex& step) { return p == step.pattern(); }))
      return k.name;
  }
  fail("tokenizer", fmt::format("{}: its words are cut by patterns that GGUF has no name for", source));
}

bool gguf_ignores_merges(std::string_view pre) { return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3"; }

}  // namespace mezzo::text
