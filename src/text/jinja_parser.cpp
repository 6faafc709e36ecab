// jinja_parser.cpp - tokens to statements.
#include "text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include <fmt/core.h>

#include "io/shown.h"

namespace mezzo::text::jinja {
namespace {

class Parser : ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Template run() {
    Template out;
    out.body = block({});
    out.marks_generation = marks_generation_;
    return out;
  }

 private:
  /// Up to a tag of one of these names, which is taken and left for the caller to look at (end_name_); none: to the end of the template.
  Block block(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(*this);
    Block out;
    while (true) {
      const Token& t = now();
      if (t.kind == TokenKind::data) {
        out.push_back(statement(Stmt::Kind::data, t.line));
        out.back().text = next().text;
      } else if (t.kind == TokenKind::variable_begin) {
        next();
        out.push_back(statement(Stmt::Kind::output, t.line));
        out.back().value = tuple();
        expect(TokenKind::variable_end, "`}}`");
      } else if (t.kind == TokenKind::block_begin) {
        next();
        std::string name = expect_name();
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) {
          end_name_ = std::move(name);
          return out;
        }
        out.push_back(tag(name, t.line));
        expect(TokenKind::block_end, "`%}`");
      } else {
        if (ends.size() != 0) trouble(fmt::format("the end of the template, {{% {} %}} was expected", *(ends.end() - 1)));
        return out;
      }
    }
  }
  static Stmt statement(Stmt::Kind kind, int line) {
    Stmt s;
    s.kind = kind;
    s.line = line;
    return s;
  }
  /// The end of the tag that begins a block, and the block.
  Block body(std::initializer_list<std::string_view> ends) {
    expect(TokenKind::block_end, "`%}`");
    return block(ends);
  }

  Stmt tag(const std::string& name, int line) {
    if (name == "if") return conditional(line);
    if (name == "for") return loop(line);
    if (name == "set") return set(line);
    if (name == "macro") return macro(line);
    if (name == "filter") return filter_block(line);
    if (name == "generation") return generation(line);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) throw SyntaxTrouble(line, fmt::format("{{% {} %}} outside of a loop", name));
      return statement(name == "break" ? Stmt::Kind::leave : Stmt::Kind::next, line);
    }
    if (name.starts_with("end") || name == "else" || name == "elif") throw SyntaxTrouble(line, fmt::format("unexpected {{% {} %}}", io::shown(name)));
    throw SyntaxTrouble(line, fmt::format("statement `{}` is not supported", io::shown(name)));
  }

  Stmt conditional(int line) {
    Stmt s = statement(Stmt::Kind::conditional, line);
    do {
      ExprPtr condition = tuple(false);
      Block then = body({"elif", "else", "endif"});
      s.branches.push_back({std::move(condition), std::move(then)});
    } while (end_name_ == "elif");
    if (end_name_ == "else") s.otherwise = body({"endif"});
    return s;
  }

  Stmt loop(int line) {
    Stmt s = statement(Stmt::Kind::loop, line);
    s.targets = targets();
    if (std::any_of(s.targets.begin(), s.targets.end(), [](const Target& t) { return !t.attribute.empty(); }))
      trouble("an attribute as the variable of a loop");
    if (!take_name("in")) unexpected("`in`");
    s.value = tuple(false);
    if (take_name("if")) s.condition = expression();
    if (is_name("recursive")) trouble("`recursive` is not supported");
    ++scopes_;
    ++loops_;
    s.body = body({"else", "endfor"});
    --loops_;
    if (end_name_ == "else") s.otherwise = body({"endfor"});
    --scopes_;
    return s;
  }

  std::vector<Target> targets() {
    std::vector<Target> out;
    const bool parentheses = take_symbol("(");
    do {
      if (!out.empty() && now().kind != TokenKind::name) break;  // a comma at the end
      Target t{expect_name(), {}};
      if (t.name == "true" || t.name == "false" || t.name == "none" || t.name == "True" || t.name == "False" || t.name == "None")
        trouble(fmt::format("`{}` cannot be set", t.name));
      if (take_symbol(".")) t.attribute = expect_name();
      out.push_back(std::move(t));
    } while (take_symbol(","));
    if (parentheses) expect_symbol(")");
    return out;
  }

  Stmt set(int line) {
    Stmt s = statement(Stmt::Kind::set, line);
    s.targets = targets();
    if (take_symbol("=")) {
      s.value = tuple();
      return s;
    }
    s.kind = Stmt::Kind::set_block;
    if (s.targets.size() != 1) unexpected("`=`");
    while (take_symbol("|")) s.value = filter(std::move(s.value));
    s.body = buffered({"endset"});
    return s;
  }

  Stmt macro(int line) {
    if (scopes_ > 0) throw SyntaxTrouble(line, "{% macro %} inside of a loop or of another block with variables of its own is not supported");
    Stmt s = statement(Stmt::Kind::macro, line);
    s.text = expect_name();
    expect_symbol("(");
    separated(")", [&] {
      Parameter p{expect_name(), nullptr};
      if (take_symbol("=")) p.otherwise = expression();
      else if (!s.parameters.empty() && s.parameters.back().otherwise) unexpected("`=` and a default");
      s.parameters.push_back(std::move(p));
    });
    in_macro_ = true;
    s.body = buffered({"endmacro"});
    in_macro_ = false;
    return s;
  }

  Stmt filter_block(int line) {
    Stmt s = statement(Stmt::Kind::filter, line);
    do s.value = filter(std::move(s.value));
    while (take_symbol("|"));
    s.body = buffered({"endfilter"});
    return s;
  }

  /// A body with variables of its own, in which no generation can begin.
  Block buffered(std::initializer_list<std::string_view> ends) {
    ++scopes_;
    ++buffers_;
    Block out = body(ends);
    --buffers_;
    --scopes_;
    return out;
  }

  Stmt generation(int line) {
    if (buffers_ > 0)
      throw SyntaxTrouble(line, "{% generation %} inside of a macro, a {% set %} block, a {% filter %} or another one is not supported");
    Stmt s = statement(Stmt::Kind::generation, line);
    marks_generation_ = true;
    const int loops = std::exchange(loops_, 0);
    s.body = buffered({"endgeneration"});
    loops_ = loops;
    return s;
  }

  int scopes_ = 0, loops_ = 0, buffers_ = 0;  // around this statement: with variables of their own, loops, whose text is not written at once
  bool marks_generation_ = false;
  std::string end_name_;
};

}  // namespace

Template parse(const std::vector<Token>& tokens) { return Parser(tokens).run(); }

}  // namespace mezzo::text::jinja
