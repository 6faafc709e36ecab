// jinja_lexer.cpp - a template's text to tokens.
#include <algorithm>
#include <string>

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
      if (const char sign = at_ < source_.size() ? source_[at_] : 0; sign == '-' || sign == '+') ++at_;
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
      if (i + 1 < source_.size() && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    return source_.npos;
  }

  /// The text up to the tag at `tag`, without the space that the tag takes from it; then the tag's first two characters.
  void data(std::size_t tag) {
    std::string_view text = rest().substr(0, tag == source_.npos ? tag : tag - at_);
    const bool line_begins = at_ == 0 || source_[at_ - 1] == '\n';
    if (tag != source_.npos) text = stripped(text, source_[tag + 1] != '{', tag + 2 < source_.size() ? source_[tag + 2] : 0, line_begins);
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

  /// Past the end of a tag (`%}`, `#}`, `}}`, at which this is or whose sign it is), and of the space that it takes.
  bool end_of_tag(std::string_view closing) {
    const bool statement = closing != "}}";
    if (at(closing)) {
      advance(at_ + 2);
      if (statement && at("\n")) advance(at_ + 1);  // trim_blocks
      return true;
    }
    const char sign = rest().empty() ? '\0' : rest()[0];
    if ((sign != '-' && !(sign == '+' && statement)) || !rest().substr(1).starts_with(closing)) return false;
    advance(at_ + 3);
    if (sign == '-') skip_space();
    return true;
  }

  void comment() {
    std::size_t end = source_.find("#}", at_);
    if (end == source_.npos) trouble("a comment does not end");
    if (end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+')) --end;
    advance(end);
    end_of_tag("#}");
  }

  /// {% raw %} to {% endraw %}, if this is one.
  bool raw() {
    const auto [at, line] = std::pair(at_, line_);
    const auto is_tag = [&](std::string_view name) {
      skip_space();
      if (!this->at(name)) return false;
      advance(at_ + name.size());
      skip_space();
      return true;
    };
    if (!is_tag("raw") || !(this->at("%}") || this->at("-%}"))) {
      at_ = at;
      line_ = line;
      return false;
    }
    if (this->at("-")) advance(at_ + 3), skip_space();
    else advance(at_ + 2);
    const std::size_t begin = at_;
    for (std::size_t tag = begin; (tag = source_.find("{%", tag)) != source_.npos; tag += 2) {
      const int data_line = line_;
      const bool line_begins = begin == 0 || source_[begin - 1] == '\n';
      at_ = tag + 2;
      const char sign = at_ < source_.size() ? source_[at_] : '\0';
      if (sign == '-' || sign == '+') ++at_;
      if (is_tag("endraw") && end_of_tag("%}")) {
        const std::string_view text = stripped(std::string_view(source_).substr(begin, tag - begin), true, sign, line_begins);
        if (!text.empty()) tokens_.push_back({Kind::data, data_line, std::string(text)});
        line_ = data_line + static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(begin),
                                                        source_.begin() + static_cast<std::ptrdiff_t>(at_), '\n'));
        return true;
      }
      line_ = data_line;
    }
    line_ = line;
    trouble("{% raw %} without {% endraw %}");
  }

  /// The tokens of one tag.
  void inside(Kind begin, Kind end, std::string_view closing) {
    const int line = line_;
    push(begin, {});
    std::string open;  // brackets
    while (true) {
      skip_space();
      const int end_line = line_;
      if (open.empty() && end_of_tag(closing)) {
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
      while (end < source_.size() && is_name_char(source_[end])) ++end;
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
      for (; end < source_.size() &&
             (is_digit_char(source_[end]) || (source_[end] == '_' && end + 1 < source_.size() && is_digit_char(source_[end + 1])));
           ++end)
        if (source_[end] != '_') digits += source_[end];
    };
    take_digits();
    Kind kind = Kind::integer;
    const bool after_dot = !tokens_.empty() && tokens_.back().is(Kind::symbol, ".");  // x.0.1
    const auto digit_at = [&](std::size_t i) { return i < source_.size() && is_digit_char(source_[i]); };
    if (!after_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      kind = Kind::real;
      digits += source_[end++];
      take_digits();
    }
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign = end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (digit_at(end + 1 + sign)) {
        kind = Kind::real;
        digits += source_.substr(end, 1 + sign);
        end += 1 + sign;
        take_digits();
      }
    }
    if (end < source_.size() && is_name_char(source_[end])) trouble(fmt::format("a number followed by `{}`", io::shown(source_.substr(end, 1))));
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
    const std::size_t size = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (size > 0) return code_point(source_.substr(i + 1, size), 16, size, out), i + 1 + size;
    if (c >= '0' && c <= '7') {
      std::size_t end = i;
      while (end < i + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7') ++end;
      code_point(source_.substr(i, end - i), 8, 1, out);
      return end;
    }
    out += '\\';
    return i;
  }

  void code_point(const std::string& digits, int base, std::size_t size, std::string& out) const {
    std::size_t read = 0;
    std::int64_t number = -1;
    if (digits.size() >= size && std::all_of(digits.begin(), digits.end(), [](char c) { return std::isxdigit(static_cast<unsigned char>(c)); }))
      number = std::stoll(digits, &read, base);
    if (number < 0 || !utf8proc_codepoint_valid(static_cast<utf8proc_int32_t>(std::min<std::int64_t>(number, 0x110000))))
      trouble(fmt::format("`{}` in a string is no code point", io::shown(digits)));
    utf8proc_uint8_t bytes[4];
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(utf8proc_encode_char(static_cast<utf8proc_int32_t>(number), bytes)));
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace mezzo::text::jinja
