// jinja_lexer.cpp - a template's text to tokens.
#include <algorithm>
#include <charconv>
#include <string>
#include <tuple>
#include <utility>

#include <fmt/core.h>
#include <utf8proc.h>

#include "io/shown.h"
#include "text/jinja_text.h"
#include "text/jinja_tree.h"

namespace mezzo::text::jinja {
namespace {

using Kind = Token::Kind;

// Longest first where one begins another.
constexpr std::string_view kSymbols[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                         "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) {
  return is_digit_char(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

/// Line ends are \n, and the last one does not count.
std::string with_plain_line_ends(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && source.substr(i, 2) == "\r\n") continue;
    out += source[i] == '\r' ? '\n' : source[i];
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_line_ends(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = next_tag();
      data(tag);
      if (tag == source_.npos) break;
      const char kind = source_[tag + 1];
      take_sign();
      if (kind == '#') comment();
      else if (kind == '{') inside(Kind::variable_begin, Kind::variable_end, "}}");
      else if (!raw()) inside(Kind::block_begin, Kind::block_end, "%}");
    }
    push(Kind::end, {});
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool at(std::string_view text) const { return rest().starts_with(text); }
  char peek(std::size_t i) const { return i < source_.size() ? source_[i] : '\0'; }
  [[noreturn]] void trouble(const std::string& what) const { throw SyntaxTrouble(line_, what); }
  void push(Kind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  void advance(std::size_t to) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_), source_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }
  void skip_space() { advance(source_.size() - strip_left(rest()).size()); }

  std::size_t next_tag() const {
    for (std::size_t i = at_; (i = source_.find('{', i)) != source_.npos; ++i)
      if (peek(i + 1) == '{' || peek(i + 1) == '%' || peek(i + 1) == '#') return i;
    return source_.npos;
  }

  /// The text up to the tag at `tag`, without the space that the tag takes from it; then the tag's first two characters.
  void data(std::size_t tag) {
    std::string_view text = rest().substr(0, tag == source_.npos ? tag : tag - at_);
    const bool line_begins = at_ == 0 || source_[at_ - 1] == '\n';
    if (tag != source_.npos) text = stripped(text, source_[tag + 1] != '{', peek(tag + 2), line_begins);
    if (!text.empty()) push(Kind::data, std::string(text));
    advance(tag == source_.npos ? source_.size() : tag + 2);
  }

  /// `-` takes all space before a tag; without a sign, what a line has before a statement or comment goes if it is only space (lstrip_blocks).
  static std::string_view stripped(std::string_view text, bool statement, char sign, bool line_begins) {
    if (sign == '-') return strip_right(text);
    if (sign == '+' || !statement) return text;
    const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    return (line > 0 || line_begins) && strip_left(text.substr(line)).empty() ? text.substr(0, line) : text;
  }

  /// What a tag begins with: `-`, `+` or nothing.
  char take_sign() {
    const char sign = peek(at_);
    return sign == '-' || sign == '+' ? ++at_, sign : '\0';
  }

  /// Past the end of a tag, if this is it, and past the space that it takes: all of it with `-`; a line's end without a sign, if it `trims`.
  bool end_of_tag(std::string_view closing, bool trims) {
    if (at(closing)) {
      advance(at_ + closing.size());
      if (trims && at("\n")) advance(at_ + 1);
      return true;
    }
    const char sign = peek(at_);
    if ((sign != '-' && !(sign == '+' && trims)) || !rest().substr(1).starts_with(closing)) return false;
    advance(at_ + 1 + closing.size());
    if (sign == '-') skip_space();
    return true;
  }

  void comment() {
    std::size_t end = source_.find("#}", at_);
    if (end == source_.npos) trouble("a comment does not end");
    if (end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+')) --end;
    advance(end);
    end_of_tag("#}", true);
  }

  /// Past the rest of a tag of this one word; stays where it is if it is another.
  bool take_word(std::string_view word, bool trims) {
    const auto before = std::pair(at_, line_);
    skip_space();
    if (at(word)) {
      advance(at_ + word.size());
      skip_space();
      if (end_of_tag("%}", trims)) return true;
    }
    std::tie(at_, line_) = before;
    return false;
  }

  /// {% raw %} to {% endraw %}, if this is one.
  bool raw() {
    if (!take_word("raw", false)) return false;
    const std::size_t begin = at_;
    const int line = line_;
    while (true) {
      const std::size_t tag = source_.find("{%", at_);
      if (tag == source_.npos) throw SyntaxTrouble(line, "{% raw %} without {% endraw %}");
      advance(tag + 2);
      const char sign = take_sign();
      if (!take_word("endraw", true)) continue;
      const std::string_view text = stripped(std::string_view(source_).substr(begin, tag - begin), true, sign, source_[begin - 1] == '\n');
      if (!text.empty()) tokens_.push_back({Kind::data, line, std::string(text)});
      return true;
    }
  }

  /// The tokens of one tag.
  void inside(Kind begin, Kind end, std::string_view closing) {
    const int line = line_;
    push(begin, {});
    std::string open;  // brackets
    while (true) {
      skip_space();
      const int end_line = line_;
      if (open.empty() && end_of_tag(closing, end == Kind::block_end)) {
        tokens_.push_back({end, end_line, {}});
        return;
      }
      if (at_ >= source_.size()) throw SyntaxTrouble(line, fmt::format("a tag does not end, `{}` was expected", closing));
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = source_[at_];
    if (is_digit_char(c)) return number();
    if (is_name_char(c)) {
      std::size_t end = at_;
      while (is_name_char(peek(end))) ++end;
      push(Kind::name, source_.substr(at_, end - at_));
      return advance(end);
    }
    if (c == '"' || c == '\'') return string(c);
    for (const std::string_view symbol : kSymbols) {
      if (!at(symbol)) continue;
      if (symbol == "(" || symbol == "[" || symbol == "{") open += symbol == "(" ? ')' : symbol == "[" ? ']' : '}';
      if (symbol == ")" || symbol == "]" || symbol == "}") {
        if (open.empty() || open.back() != symbol[0])
          trouble(open.empty() ? fmt::format("unexpected `{}`", symbol) : fmt::format("unexpected `{}`, `{}` was expected", symbol, open.back()));
        open.pop_back();
      }
      push(Kind::symbol, std::string(symbol));
      return advance(at_ + symbol.size());
    }
    trouble(fmt::format("unexpected character `{}`", io::shown(rest().substr(0, first_code_point(rest()).size))));
  }

  void number() {
    std::string digits;
    std::size_t end = at_;
    const auto take_digits = [&] {
      for (; is_digit_char(peek(end)) || (peek(end) == '_' && is_digit_char(peek(end + 1))); ++end)
        if (peek(end) != '_') digits += peek(end);
    };
    take_digits();
    Kind kind = Kind::integer;
    if (tokens_.empty() || !tokens_.back().is(Kind::symbol, ".")) {  // x.0.1 has no fractions
      if (peek(end) == '.' && is_digit_char(peek(end + 1))) {
        kind = Kind::real;
        digits += peek(end++);
        take_digits();
      }
      const std::size_t sign = peek(end + 1) == '+' || peek(end + 1) == '-';
      if ((peek(end) == 'e' || peek(end) == 'E') && is_digit_char(peek(end + 1 + sign))) {
        kind = Kind::real;
        digits += source_.substr(end, 1 + sign);
        end += 1 + sign;
        take_digits();
      }
    }
    if (is_name_char(peek(end))) trouble(fmt::format("a number followed by `{}`", io::shown(source_.substr(end, 1))));
    push(kind, std::move(digits));
    advance(end);
  }

  void string(char quote) {
    const int line = line_;
    std::string out;
    std::size_t i = at_ + 1;
    while (i < source_.size() && source_[i] != quote) {
      if (source_[i] != '\\') out += source_[i++];
      else i = escape(i + 1, out);
    }
    if (i >= source_.size()) trouble("a string does not end");
    tokens_.push_back({Kind::string, line, std::move(out)});
    advance(i + 1);
  }

  /// What follows a backslash, at i; the offset behind it. Python's: what it does not know stays, backslash and all.
  std::size_t escape(std::size_t i, std::string& out) const {
    constexpr std::string_view kNames = "abfnrtv\\'\"", kMeans = "\a\b\f\n\r\t\v\\'\"";
    if (i >= source_.size()) return i;
    const char c = source_[i];
    if (const auto known = kNames.find(c); known != kNames.npos) {
      out += kMeans[known];
      return i + 1;
    }
    if (c == '\n') return i + 1;
    if (c == 'N') trouble("`\\N{...}` in a string is not supported");
    if (const std::size_t size = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0; size > 0) return code_point(i + 1, i + 1 + size, 16, out);
    if (c < '0' || c > '7') {
      out += '\\';
      return i;
    }
    std::size_t end = i;
    while (end < i + 3 && peek(end) >= '0' && peek(end) <= '7') ++end;
    return code_point(i, end, 8, out);
  }

  /// The code point whose number stands at [begin, end); end.
  std::size_t code_point(std::size_t begin, std::size_t end, int base, std::string& out) const {
    const std::string_view digits = std::string_view(source_).substr(std::min(begin, source_.size()), end - begin);
    std::int32_t number = -1;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), number, base);
    if (read.ptr != digits.data() + digits.size() || !utf8proc_codepoint_valid(number))
      trouble(fmt::format("`{}` in a string is no code point", io::shown(digits)));
    append_code_point(out, number);
    return end;
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace mezzo::text::jinja
