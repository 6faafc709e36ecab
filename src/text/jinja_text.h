// jinja_text.h - strings as Python has them: sequences of code points, with its white space, case and line ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mezzo::text {

/// Calls f(text of the code point, its number) for each; a byte that begins none stands for itself, as U+FFFD.
template <class F> void for_each_code_point(std::string_view text, const F& f);
/// The code point that a non-empty text begins with.
struct CodePoint {
  std::size_t size;
  std::int32_t number;
};
CodePoint first_code_point(std::string_view text) noexcept;

void append_code_point(std::string& out, std::int32_t number);

/// str.isspace(): White_Space, and the four separators U+001C to U+001F.
bool is_space(std::int32_t code_point) noexcept;
bool is_letter(std::int32_t code_point) noexcept;  ///< of any alphabet
bool is_digit(std::int32_t code_point) noexcept;   ///< decimal

/// Without white space, or without any of `chars`, at the ends asked for.
std::string_view strip_left(std::string_view text) noexcept;
std::string_view strip_right(std::string_view text) noexcept;
std::string_view strip_left(std::string_view text, std::string_view chars) noexcept;
std::string_view strip_right(std::string_view text, std::string_view chars) noexcept;

std::size_t length(std::string_view text) noexcept;  ///< in code points
std::vector<std::string_view> code_points(std::string_view text);
std::vector<std::string_view> lines(std::string_view text);  ///< cut at \n, \r and \r\n; what follows the last, if anything

std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// The first letter upper case, the others lower.
std::string capitalized(std::string_view text);
/// Every letter behind something that is none in upper case, the others lower: str.title().
std::string titled(std::string_view text);

template <class F> void for_each_code_point(std::string_view text, const F& f) {
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    f(text.substr(0, c.size), c.number);
    text.remove_prefix(c.size);
  }
}

}  // namespace mezzo::text
