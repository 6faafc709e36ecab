// tokenizer_gguf.cpp - the tokenizer in a GGUF file's metadata.
#include <algorithm>
#include <unordered_map>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/shown.h"
#include "text/tokenizer_files.h"
#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr std::string_view kOp = "tokenizer";

// tokenizer.ggml.token_type
enum TokenType : std::int64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

std::optional<std::int32_t> id_at(const io::GgufFile& f, std::string_view key, std::size_t vocab) {
  if (!f.field(key)) return std::nullopt;
  const std::int64_t id = f.integer(key);
  if (id < 0 || id >= static_cast<std::int64_t>(vocab)) {
    if (id == 0xFFFFFFFF || id == -1) return std::nullopt;  // how converters write "none"
    f.fail_field(key, fmt::format("a token's id below {}", vocab));
  }
  return static_cast<std::int32_t>(id);
}

void add_merges(const io::GgufFile& f, BpeParts& parts) {
  const std::string_view key = "tokenizer.ggml.merges";
  const io::GgufValue* field = f.field(key);
  const auto merges = field ? field->strings() : std::nullopt;
  if (!merges) f.fail_field(key, "an array of string");
  std::unordered_map<std::string_view, std::int32_t> ids;
  for (std::size_t i = 0; i < parts.tokens.size(); ++i) ids.emplace(parts.tokens[i], static_cast<std::int32_t>(i));
  for (const std::string_view line : *merges) {
    const auto id = [&](const std::string& token) {
      const auto found = ids.find(token);
      if (found == ids.end())
        fail(kOp, fmt::format("{}: {}: entry {} is `{}`, and `{}` is not in the vocabulary", f.path().native(), key, parts.merges.size(),
                              io::shown(line), io::shown(token)));
      return found->second;
    };
    const auto space = line.find(' ', 1);  // a token may begin with a space only as U+0120
    if (space == line.npos)
      fail(kOp, fmt::format("{}: {}: entry {} is `{}`, two tokens were expected", f.path().native(), key, parts.merges.size(), io::shown(line)));
    const std::string left(line.substr(0, space)), right(line.substr(space + 1));
    parts.merges.push_back({id(left), id(right), id(left + right)});
  }
}

/// SentencePiece merges the neighbours whose joined piece has the best score: every way to cut a piece into two pieces is a merge, and the score
/// its rank.
void add_scored_merges(const io::GgufFile& f, BpeParts& parts, const std::vector<std::int64_t>& types) {
  constexpr std::size_t kLongest = 1024;
  const std::string_view key = "tokenizer.ggml.scores";
  const io::GgufValue* field = f.field(key);
  const auto scores = field ? field->floats() : std::nullopt;
  if (!scores || scores->size() != parts.tokens.size()) f.fail_field(key, fmt::format("an array of {} f32", parts.tokens.size()));
  if (std::any_of(scores->begin(), scores->end(), [](float s) { return s != s; })) f.fail_field(key, "numbers without a NaN");

  std::unordered_map<std::string_view, std::int32_t> ids;
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < parts.tokens.size(); ++i) {
    if (types[i] != kNormal && types[i] != kUserDefined && types[i] != kUnused) continue;
    if (parts.tokens[i].size() > kLongest)
      fail(kOp, fmt::format("{}: token {} has {} bytes, at most {} were expected", f.path().native(), i, parts.tokens[i].size(), kLongest));
    if (ids.emplace(parts.tokens[i], static_cast<std::int32_t>(i)).second) order.push_back(static_cast<std::int32_t>(i));
  }
  const auto score = [&](std::int32_t id) { return (*scores)[static_cast<std::size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return score(a) > score(b); });
  std::int32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) != score(order[i - 1])) ++rank;
    const std::string_view piece = parts.tokens[static_cast<std::size_t>(order[i])];
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((piece[cut] & 0xC0) == 0x80) continue;
      const auto left = ids.find(piece.substr(0, cut)), right = ids.find(piece.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      parts.merges.push_back({left->second, right->second, order[i]});
      parts.ranks.push_back(rank);
    }
  }
}

}  // namespace

BpeParts tokenizer_of_gguf(const io::GgufFile& f) {
  const std::string& path = f.path().native();
  const std::string_view model = f.string("tokenizer.ggml.model");
  if (model != "gpt2" && model != "llama")
    fail(kOp, fmt::format("{}: tokenizer.ggml.model is \"{}\", \"gpt2\" or \"llama\" was expected", path, io::shown(model)));
  const io::GgufValue* field = f.field("tokenizer.ggml.tokens");
  const auto tokens = field ? field->strings() : std::nullopt;
  if (!tokens || tokens->empty()) f.fail_field("tokenizer.ggml.tokens", "an array of string");
  std::vector<std::int64_t> types(tokens->size(), kNormal);
  if (const io::GgufValue* t = f.field("tokenizer.ggml.token_type")) {
    const auto given = t->integers();
    if (!given || given->size() != tokens->size()) f.fail_field("tokenizer.ggml.token_type", fmt::format("an array of {} integers", tokens->size()));
    types = *given;
  }

  BpeParts parts;
  parts.tokens.assign(tokens->begin(), tokens->end());
  for (std::size_t i = 0; i < types.size(); ++i) {
    if (types[i] != kControl && types[i] != kUserDefined && types[i] != kUnknown) continue;
    if (!parts.tokens[i].empty())
      parts.added.push_back({.content = parts.tokens[i], .id = static_cast<std::int32_t>(i), .special = types[i] != kUserDefined});
  }
  const std::size_t n = parts.tokens.size();
  parts.begin = id_at(f, "tokenizer.ggml.bos_token_id", n);
  parts.end = id_at(f, "tokenizer.ggml.eos_token_id", n);
  if (model == "gpt2") {
    const std::string_view pre = f.field("tokenizer.ggml.pre") ? f.string("tokenizer.ggml.pre") : "default";
    parts.splitter = splitter_of_gguf(pre, path);
    parts.ignore_merges = gguf_ignores_merges(pre);
    if (pre == "qwen2") parts.normalizer = Normalizer({NormalForm::nfc});
    parts.adds_begin = f.boolean_or("tokenizer.ggml.add_bos_token", gguf_ignores_merges(pre)) && parts.begin;
    add_merges(f, parts);
  } else {
    if (f.boolean_or("tokenizer.ggml.remove_extra_whitespaces", false)) f.fail_field("tokenizer.ggml.remove_extra_whitespaces", "false");
    parts.byte_level = false;
    parts.byte_fallback = true;
    parts.unknown = id_at(f, "tokenizer.ggml.unknown_token_id", n);
    if (!parts.unknown)
      if (const auto unknown = std::find(types.begin(), types.end(), kUnknown); unknown != types.end())
        parts.unknown = static_cast<std::int32_t>(unknown - types.begin());
    const Replace marks{" ", std::string(kSpaceMark)};
    const bool prefix = f.boolean_or("tokenizer.ggml.add_space_prefix", true);
    parts.normalizer = prefix ? Normalizer({Prepend{std::string(kSpaceMark)}, marks}) : Normalizer({marks});
    parts.strip_first_space = prefix;
    parts.adds_begin = f.boolean_or("tokenizer.ggml.add_bos_token", true) && parts.begin;
    add_scored_merges(f, parts, types);
  }
  return parts;
}

}  // namespace mezzo::text
