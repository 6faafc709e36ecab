// jinja_expressions.cpp - tokens to expressions: one function for each strength of operators, the loosest first.
#include <algorithm>
#include <charconv>

#include "io/shown.h"
#include "text/jinja_parser.h"

namespace mezzo::text::jinja {
namespace {

std::string described(const Token& t) {
  switch (t.kind) {
    case Token::Kind::end: return "the end of the template";
    case Token::Kind::variable_end: return "`}}`";
    case Token::Kind::block_end: return "`%}`";
    case Token::Kind::string: return fmt::format("the string `{}`", io::shown(t.text));
    default: return fmt::format("`{}`", io::shown(t.text));
  }
}

}  // namespace

void ExpressionParser::unexpected(std::string_view wanted) const { trouble(fmt::format("{}, {} was expected", described(now()), wanted)); }

ExprPtr ExpressionParser::constant(int line, Value v) {
  auto e = make(Expr::Kind::constant, line);
  e->constant = std::move(v);
  return e;
}

ExprPtr ExpressionParser::tuple(bool conditionals, bool open) {
  const int line = now().line;
  auto all = make(Expr::Kind::tuple, line);
  bool comma = false;
  while (true) {
    const bool ends = now().kind == TokenKind::variable_end || now().kind == TokenKind::block_end || is_symbol(")");
    if (ends && (comma || open)) break;
    add(*all, expression(conditionals));
    if (!take_symbol(",")) break;
    comma = true;
  }
  if (!comma && !all->parts.empty()) {
    ExprPtr one = std::move(all->parts[0]);
    return one;
  }
  return all;
}

ExprPtr ExpressionParser::expression(bool conditionals) {
  const Deeper deeper(*this);
  ExprPtr value = either();
  while (conditionals && is_name("if")) {
    const int line = next().line;
    ExprPtr condition = either(), otherwise;
    if (take_name("else")) otherwise = expression();
    value = make(Expr::Kind::conditional, line, std::move(condition), std::move(value), std::move(otherwise));
  }
  return value;
}

ExprPtr ExpressionParser::either() {
  ExprPtr left = both();
  while (is_name("or")) {
    const int line = next().line;
    left = make(Expr::Kind::either, line, std::move(left), both());
  }
  return left;
}

ExprPtr ExpressionParser::both() {
  ExprPtr left = inverse();
  while (is_name("and")) {
    const int line = next().line;
    left = make(Expr::Kind::both, line, std::move(left), inverse());
  }
  return left;
}

ExprPtr ExpressionParser::inverse() {
  if (!is_name("not")) return comparison();
  const Deeper deeper(*this);
  const int line = next().line;
  return make(Expr::Kind::inverse, line, inverse());
}

std::optional<Operator> ExpressionParser::take_comparison() {
  constexpr std::pair<std::string_view, Operator> kSymbols[] = {{"==", Operator::equal},  {"!=", Operator::unequal},
                                                                {"<", Operator::less},    {"<=", Operator::less_equal},
                                                                {">", Operator::greater}, {">=", Operator::greater_equal}};
  for (const auto& [symbol, op] : kSymbols)
    if (take_symbol(symbol)) return op;
  if (take_name("in")) return Operator::in;
  if (is_name("not") && tokens_[at_ + 1].is(TokenKind::name, "in")) return next(), next(), Operator::not_in;
  return std::nullopt;
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr left = sum();
  const int line = now().line;
  auto op = take_comparison();
  if (!op) return left;
  auto e = make(Expr::Kind::compare, line, std::move(left));
  for (; op; op = take_comparison()) {
    e->operators.push_back(*op);
    add(*e, sum());
  }
  return e;
}

ExprPtr ExpressionParser::left_to_right(Level tighter, std::initializer_list<std::pair<std::string_view, Operator>> symbols) {
  ExprPtr left = (this->*tighter)();
  while (true) {
    const auto found = std::find_if(symbols.begin(), symbols.end(), [&](const auto& s) { return is_symbol(s.first); });
    if (found == symbols.end()) return left;
    const int line = next().line;
    auto e = make(Expr::Kind::binary, line, std::move(left), (this->*tighter)());
    e->operators = {found->second};
    left = std::move(e);
  }
}
ExprPtr ExpressionParser::sum() { return left_to_right(&ExpressionParser::concat, {{"+", Operator::add}, {"-", Operator::subtract}}); }
ExprPtr ExpressionParser::concat() {
  ExprPtr left = product();
  if (!is_symbol("~")) return left;
  auto e = make(Expr::Kind::concat, now().line, std::move(left));
  while (take_symbol("~")) add(*e, product());
  return e;
}
ExprPtr ExpressionParser::product() {
  return left_to_right(&ExpressionParser::power,
                       {{"*", Operator::multiply}, {"/", Operator::divide}, {"//", Operator::floor_divide}, {"%", Operator::modulo}});
}
ExprPtr ExpressionParser::power() { return left_to_right(&ExpressionParser::filtered, {{"**", Operator::power}}); }
ExprPtr ExpressionParser::filtered() { return with_filters(unary()); }

ExprPtr ExpressionParser::unary() {
  const Deeper deeper(*this);
  const int line = now().line;
  ExprPtr value;
  if (take_symbol("-")) value = make(Expr::Kind::negative, line, unary());
  else if (take_symbol("+")) value = make(Expr::Kind::positive, line, unary());
  else value = primary();
  return with_postfixes(std::move(value));
}

ExprPtr ExpressionParser::primary() {
  const Token& t = now();
  switch (t.kind) {
    case TokenKind::name: return named();
    case TokenKind::string: {
      std::string all;
      while (now().kind == TokenKind::string) all += next().text;
      return constant(t.line, std::move(all));
    }
    case TokenKind::integer: {
      std::int64_t n = 0;
      if (std::from_chars(t.text.data(), t.text.data() + t.text.size(), n).ec != std::errc())
        trouble(fmt::format("{} has more than 64 bits", io::shown(t.text)));
      next();
      return constant(t.line, n);
    }
    case TokenKind::real: {
      double x = 0;
      std::from_chars(t.text.data(), t.text.data() + t.text.size(), x);  // out of range: 0, and infinite in Python
      next();
      return constant(t.line, x);
    }
    default: break;
  }
  if (take_symbol("(")) {
    ExprPtr value = tuple(true, true);
    expect_symbol(")");
    return value;
  }
  if (take_symbol("[")) {
    auto e = make(Expr::Kind::list, t.line);
    separated("]", [&] { add(*e, expression()); });
    return e;
  }
  if (take_symbol("{")) {
    auto e = make(Expr::Kind::dict, t.line);
    separated("}", [&] {
      add(*e, expression());
      expect_symbol(":");
      add(*e, expression());
    });
    return e;
  }
  unexpected("an expression");
}

ExprPtr ExpressionParser::named() {
  const Token& t = next();
  if (t.text == "true" || t.text == "True") return constant(t.line, true);
  if (t.text == "false" || t.text == "False") return constant(t.line, false);
  if (t.text == "none" || t.text == "None") return constant(t.line, None{});
  if (in_macro_ && (t.text == "caller" || t.text == "varargs" || t.text == "kwargs"))
    throw SyntaxTrouble(t.line, fmt::format("`{}` in a macro is not supported", t.text));
  auto e = make(Expr::Kind::name, t.line);
  e->text = t.text;
  return e;
}

ExprPtr ExpressionParser::with_postfixes(ExprPtr value) {
  while (true) {
    const int line = now().line;
    if (take_symbol(".")) {
      if (now().kind == TokenKind::integer) {
        value = make(Expr::Kind::item, line, std::move(value), primary());
      } else {
        auto e = make(Expr::Kind::attribute, line, std::move(value));
        e->text = expect_name();
        value = std::move(e);
      }
    } else if (take_symbol("[")) {
      value = subscript(line, std::move(value));
    } else if (is_symbol("(")) {
      auto e = make(Expr::Kind::call, line, std::move(value));
      arguments(*e);
      value = std::move(e);
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::subscript(int line, ExprPtr value) {
  ExprPtr bounds[3];
  int colons = 0;
  while (!is_symbol("]")) {
    if (colons < 2 && take_symbol(":")) ++colons;
    else if (!bounds[colons]) bounds[colons] = expression();
    else unexpected("`]`");
  }
  if (colons == 0 && !bounds[0]) unexpected("an expression");
  next();
  if (colons == 0) return make(Expr::Kind::item, line, std::move(value), std::move(bounds[0]));
  return make(Expr::Kind::slice, line, std::move(value), std::move(bounds[0]), std::move(bounds[1]), std::move(bounds[2]));
}

void ExpressionParser::arguments(Expr& e) {
  expect_symbol("(");
  separated(")", [&] {
    if (is_symbol("*") || is_symbol("**")) trouble(fmt::format("`{}` before an argument is not supported", now().text));
    Argument a;
    if (now().kind == TokenKind::name && tokens_[at_ + 1].is(TokenKind::symbol, "=")) a.name = next().text, next();
    else if (!e.arguments.empty() && !e.arguments.back().name.empty()) unexpected("a name and `=`");
    a.value = expression();
    deepen(e, a.value);
    e.arguments.push_back(std::move(a));
  });
}

ExprPtr ExpressionParser::with_filters(ExprPtr value) {
  while (true) {
    if (take_symbol("|")) value = filter(std::move(value));
    else if (is_name("is")) value = test(std::move(value));
    else if (is_symbol("(")) value = with_postfixes(std::move(value));
    else return value;
  }
}

ExprPtr ExpressionParser::filter(ExprPtr value) {
  const int line = now().line;
  auto e = make(Expr::Kind::filter, line, std::move(value));
  e->text = expect_name();
  if (!is_filter(e->text)) throw SyntaxTrouble(line, fmt::format("filter `{}` is not supported", io::shown(e->text)));
  if (is_symbol("(")) arguments(*e);
  return e;
}

ExprPtr ExpressionParser::test(ExprPtr value) {
  const int line = next().line;
  const bool inverted = take_name("not");
  auto e = make(Expr::Kind::test, line, std::move(value));
  e->text = expect_name();
  if (!is_test(e->text)) throw SyntaxTrouble(line, fmt::format("test `{}` is not supported", io::shown(e->text)));
  const bool symbol = is_symbol("[") || is_symbol("{"),
             word = now().kind == TokenKind::name && !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if");
  if (is_symbol("(")) {
    arguments(*e);
  } else if (is_name("is")) {
    trouble("tests cannot be chained with `is`");
  } else if (symbol || word || now().kind == TokenKind::string || now().kind == TokenKind::integer || now().kind == TokenKind::real) {
    Argument a;
    a.value = with_postfixes(primary());
    deepen(*e, a.value);
    e->arguments.push_back(std::move(a));
  }
  return inverted ? make(Expr::Kind::inverse, line, ExprPtr(std::move(e))) : std::move(e);
}

}  // namespace mezzo::text::jinja
