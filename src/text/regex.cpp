// regex.cpp - PCRE2 in UTF-8 with JIT.
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <fmt/core.h>

#include "core/fail.h"

namespace mezzo::text {
namespace {

/// White_Space is these and the separators, \p{Z}; PCRE2's \s has U+180E besides (a space until Unicode 6.3).
constexpr std::string_view kSpace = R"(\x{09}-\x{0d}\x{85}\p{Z})";

/// \s and \S written out, inside and outside of classes.
std::string translated(std::string_view pattern, std::string_view source) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') out += in_class ? std::string(kSpace) : fmt::format("[{}]", kSpace);
      else if (next == 'S' && !in_class) out += fmt::format("[^{}]", kSpace);
      else if (next == 'S') fail("tokenizer", fmt::format("{}: the pattern `{}` has \\S in a class", source, pattern));
      else (out += c) += next;
      continue;
    }
    if (c == '[' && !in_class) {
      in_class = true;
      out += c;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];  // an ordinary character in this place
      continue;
    }
    if (c == '[') {  // nested classes mean sets there and something else here
      fail("tokenizer", fmt::format("{}: the pattern `{}` has a class in a class", source, pattern));
    }
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string message_of(int error) {
  char text[120];
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text), sizeof text);
  return text;
}

struct MatchData {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 1 << 20, nullptr);
  MatchData() {
    pcre2_jit_stack_assign(context, nullptr, stack);
    pcre2_set_match_limit(context, 10'000'000);
  }
  ~MatchData() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool jit = false;  // machine code; else pcre2 interprets
  std::string pattern, source;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, std::string_view source) {
  auto made = std::make_shared<Code>();
  made->pattern = pattern;
  made->source = source;
  const std::string text = translated(pattern, source);
  int error = 0;
  PCRE2_SIZE at = 0;
  made->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (!made->code) fail("tokenizer", fmt::format("{}: the pattern `{}` is wrong: {}", source, pattern, message_of(error)));
  made->jit = pcre2_jit_compile(made->code, PCRE2_JIT_COMPLETE) == 0;
  code_ = std::move(made);
}

const std::string& Regex::pattern() const noexcept { return code_->pattern; }

std::optional<Regex::Match> Regex::find(std::string_view text, std::size_t from) const {
  thread_local const MatchData buffers;
  const int found =
      pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK, buffers.data, buffers.context);
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0)
    fail("tokenizer", fmt::format("{}: the pattern `{}` gave up at byte {}: {}", code_->source, code_->pattern, from, message_of(found)));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(buffers.data);
  return Match{ends[0], ends[1]};
}

}  // namespace mezzo::text
