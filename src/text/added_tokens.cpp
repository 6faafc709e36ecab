// added_tokens.cpp - finds tokens in text, by Unicode's classes of the letters around them.
#include "text/added_tokens.h"

#include <algorithm>

#include <utf8proc.h>

#include <fmt/core.h>

#include "core/fail.h"

namespace mezzo::text {
namespace {

unsigned char first_byte(const AddedToken& t) { return static_cast<unsigned char>(t.content[0]); }

/// The code point that begins at p, or ends before it; -1 at the ends of the text.
std::int32_t code_point_at(std::string_view text, std::size_t at) {
  utf8proc_int32_t c = -1;
  if (at < text.size())
    utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at), static_cast<utf8proc_ssize_t>(text.size() - at), &c);
  return c;
}
std::size_t before(std::string_view text, std::size_t at) {
  do --at;
  while (at > 0 && (text[at] & 0xC0) == 0x80);
  return at;
}

bool is_word(std::int32_t c) {
  if (c < 0) return false;
  if (c == '_') return true;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

bool is_space(std::int32_t c) {
  if ((c >= 9 && c <= 13) || c == 0x85) return true;
  if (c < 0) return false;
  const auto category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, std::string_view source) : tokens_(std::move(tokens)) {
  for (const AddedToken& t : tokens_)
    if (t.content.empty()) fail("tokenizer", fmt::format("{}: added token {} is empty text", source, t.id));
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return first_byte(a) != first_byte(b) ? first_byte(a) < first_byte(b) : a.content.size() > b.content.size();
  });
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    auto& [begin, end] = by_first_[first_byte(tokens_[i])];
    if (end == 0) begin = i;
    end = i + 1;
  }
}

const AddedToken* AddedTokens::match(std::string_view text, std::size_t at) const {
  const auto [begin, end] = by_first_[static_cast<unsigned char>(text[at])];
  for (std::uint32_t i = begin; i < end; ++i) {
    const AddedToken& t = tokens_[i];
    if (!text.substr(at).starts_with(t.content)) continue;
    if (t.single_word && ((at > 0 && is_word(code_point_at(text, before(text, at)))) || is_word(code_point_at(text, at + t.content.size()))))
      continue;
    return &t;
  }
  return nullptr;
}

std::vector<AddedTokens::Piece> AddedTokens::split(std::string_view text) const {
  std::vector<Piece> pieces;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const AddedToken* token = match(text, at);
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    if (token->lstrip)
      while (begin > done && is_space(code_point_at(text, before(text, begin)))) begin = before(text, begin);
    if (token->rstrip)
      while (end < text.size() && is_space(code_point_at(text, end))) {
        ++end;
        while (end < text.size() && (text[end] & 0xC0) == 0x80) ++end;
      }
    if (begin > done) pieces.push_back({text.substr(done, begin - done)});
    pieces.push_back({text.substr(begin, end - begin), token});
    at = done = end;
  }
  if (done < text.size()) pieces.push_back({text.substr(done)});
  return pieces;
}

}  // namespace mezzo::text
