// jinja_parser.h - the part of the parser that reads expressions.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "text/jinja_tree.h"

namespace mezzo::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(const std::vector<Token>& tokens) : tokens_(tokens) {}

 protected:
  using TokenKind = Token::Kind;
  static constexpr int kDeepest = 150;  // expressions and statements in each other

  // ---- tokens --------------------------------------------------------------------------------

  const Token& now() const { return tokens_[at_]; }
  const Token& next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool is_symbol(std::string_view s) const { return now().is(TokenKind::symbol, s); }
  bool is_name(std::string_view s) const { return now().is(TokenKind::name, s); }
  bool take_symbol(std::string_view s) { return is_symbol(s) && (next(), true); }
  bool take_name(std::string_view s) { return is_name(s) && (next(), true); }
  [[noreturn]] void trouble(const std::string& what) const { throw SyntaxTrouble(now().line, what); }

  [[noreturn]] void unexpected(std::string_view wanted) const;
  void expect_symbol(std::string_view s) {
    if (!take_symbol(s)) unexpected(fmt::format("`{}`", s));
  }
  std::string expect_name() {
    if (now().kind != TokenKind::name) unexpected("a name");
    return next().text;
  }
  void expect(TokenKind kind, std::string_view shown) {
    if (now().kind != kind) unexpected(shown);
    next();
  }

  /// Counts how deep the reading is, for as long as it lives.
  struct Deeper {
    explicit Deeper(ExpressionParser& p) : parser(p) {
      if (++parser.depth_ > kDeepest) parser.trouble(fmt::format("more than {} expressions or statements in each other", kDeepest));
    }
    Deeper(const Deeper&) = delete;
    ~Deeper() { --parser.depth_; }
    ExpressionParser& parser;
  };

  // ---- expressions -----------------------------------------------------------------------------

  ExprPtr expression(bool conditionals = true);
  /// One expression, or several with commas between: a tuple. `open`: may be nothing at all, as between parentheses.
  ExprPtr tuple(bool conditionals = true, bool open = false);
  /// From the filter's name on.
  ExprPtr filter(ExprPtr value);
  /// Members between brackets whose first is taken; a comma may follow the last.
  template <class F> void separated(std::string_view closing, const F& member) {
    while (!take_symbol(closing)) {
      member();
      if (!is_symbol(closing)) expect_symbol(",");
    }
  }

  bool in_macro_ = false;

 private:
  using Level = ExprPtr (ExpressionParser::*)();
  template <class... Parts> std::unique_ptr<Expr> make(Expr::Kind kind, int line, Parts... parts) {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = line;
    (add(*e, std::move(parts)), ...);
    return e;
  }
  void deepen(Expr& e, const ExprPtr& part) {
    if (part) e.depth = std::max(e.depth, part->depth + 1);
    if (e.depth > kDeepest) trouble(fmt::format("more than {} expressions in each other", kDeepest));
  }
  void add(Expr& e, ExprPtr part) {
    deepen(e, part);
    e.parts.push_back(std::move(part));
  }

  ExprPtr constant(int line, Value v);
  ExprPtr either();
  ExprPtr both();
  ExprPtr inverse();
  std::optional<Operator> take_comparison();
  ExprPtr comparison();
  ExprPtr left_to_right(Level tighter, std::initializer_list<std::pair<std::string_view, Operator>> symbols);
  ExprPtr sum();
  ExprPtr concat();
  ExprPtr product();
  ExprPtr power();
  ExprPtr filtered();
  ExprPtr unary();
  ExprPtr primary();
  ExprPtr named();
  ExprPtr with_postfixes(ExprPtr value);
  ExprPtr subscript(int line, ExprPtr value);
  void arguments(Expr& e);
  ExprPtr with_filters(ExprPtr value);
  ExprPtr test(ExprPtr value);

  const std::vector<Token>& tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;  // statements and expressions around this one
};

}  // namespace mezzo::text::jinja
