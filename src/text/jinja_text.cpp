// jinja_text.cpp - strings as Python has them.
#include "text/jinja_text.h"

#include <utf8proc.h>

#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr std::int32_t kReplacement = 0xFFFD;  // also what first_code_point() gives for a byte that begins none: it stays as it is

constexpr std::string_view kSharpS = "\xC3\x9F";  // the one letter in common use whose upper case is two

/// Each code point by `f`; what stands for ß is said.
std::string mapped(std::string_view text, utf8proc_int32_t (*f)(utf8proc_int32_t), std::string_view sharp_s) {
  std::string out;
  out.reserve(text.size());
  for_each_code_point(text, [&](std::string_view piece, std::int32_t c) {
    if (piece == kSharpS) out += sharp_s;
    else if (c == kReplacement) out += piece;
    else append_code_point(out, f(c));
  });
  return out;
}

std::string in_title_case(std::string_view text) { return mapped(text, utf8proc_totitle, "Ss"); }

std::size_t last_code_point_size(std::string_view text) noexcept {
  for (std::size_t n = 1; n <= 4 && n <= text.size(); ++n) {
    const std::string_view end = text.substr(text.size() - n);
    if (const auto unit = utf8_unit(end); unit.kind == Utf8::complete && unit.length == n) return n;
  }
  return 1;
}

template <class Drop> std::string_view left_without(std::string_view text, const Drop& drop) noexcept {
  while (!text.empty()) {
    const std::size_t n = first_code_point(text).size;
    if (!drop(text.substr(0, n))) break;
    text.remove_prefix(n);
  }
  return text;
}

template <class Drop> std::string_view right_without(std::string_view text, const Drop& drop) noexcept {
  while (!text.empty()) {
    const std::size_t n = last_code_point_size(text);
    if (!drop(text.substr(text.size() - n))) break;
    text.remove_suffix(n);
  }
  return text;
}

const auto kSpace = [](std::string_view c) { return is_space(first_code_point(c).number); };

auto any_of(std::string_view chars) {
  return [chars](std::string_view c) {
    for (std::string_view rest = chars; !rest.empty();) {
      const std::size_t n = first_code_point(rest).size;
      if (rest.substr(0, n) == c) return true;
      rest.remove_prefix(n);
    }
    return false;
  };
}

}  // namespace

CodePoint first_code_point(std::string_view text) noexcept {
  if (static_cast<unsigned char>(text[0]) < 0x80) return {1, text[0]};
  const Utf8Unit unit = utf8_unit(text);
  if (unit.kind != Utf8::complete) return {1, kReplacement};
  utf8proc_int32_t c = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(unit.length), &c);
  return {unit.length, c};
}

void append_code_point(std::string& out, std::int32_t number) {
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(utf8proc_encode_char(number, bytes)));
}

bool is_space(std::int32_t c) noexcept {
  return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_letter(std::int32_t c) noexcept {
  const auto category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_digit(std::int32_t c) noexcept { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }

std::string_view strip_left(std::string_view text) noexcept { return left_without(text, kSpace); }
std::string_view strip_right(std::string_view text) noexcept { return right_without(text, kSpace); }
std::string_view strip_left(std::string_view text, std::string_view chars) noexcept { return left_without(text, any_of(chars)); }
std::string_view strip_right(std::string_view text, std::string_view chars) noexcept { return right_without(text, any_of(chars)); }

std::size_t length(std::string_view text) noexcept {
  std::size_t n = 0;
  for_each_code_point(text, [&](std::string_view, std::int32_t) { ++n; });
  return n;
}

std::vector<std::string_view> code_points(std::string_view text) {
  std::vector<std::string_view> out;
  for_each_code_point(text, [&](std::string_view piece, std::int32_t) { out.push_back(piece); });
  return out;
}

std::vector<std::string_view> lines(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const std::size_t end = text.find_first_of("\r\n");
    out.push_back(text.substr(0, end));
    if (end == text.npos) break;
    text.remove_prefix(text.substr(end, 2) == "\r\n" ? end + 2 : end + 1);
  }
  return out;
}

std::string upper(std::string_view text) { return mapped(text, utf8proc_toupper, "SS"); }
std::string lower(std::string_view text) { return mapped(text, utf8proc_tolower, kSharpS); }

std::string capitalized(std::string_view text) {
  const std::size_t first = text.empty() ? 0 : first_code_point(text).size;
  return in_title_case(text.substr(0, first)) + lower(text.substr(first));
}

std::string titled(std::string_view text) {
  std::string out;
  bool inside = false;
  for_each_code_point(text, [&](std::string_view piece, std::int32_t c) {
    const bool letter = is_letter(c);
    out += letter && !inside ? in_title_case(piece) : lower(piece);
    inside = letter;
  });
  return out;
}

}  // namespace mezzo::text
