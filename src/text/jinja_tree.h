// jinja_tree.h - a template taken apart: tokens, expressions, statements.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja.h"
#include "text/jinja_value.h"

namespace mezzo::text::jinja {

// ---- tokens ----------------------------------------------------------------------------------

struct Token {
  enum class Kind : std::uint8_t { data, variable_begin, variable_end, block_begin, block_end, name, string, integer, real, symbol, end };
  Kind kind = Kind::end;
  int line = 1;
  std::string text;  // data, names, what a string holds, digits, a symbol
  bool is(Kind k, std::string_view t) const { return kind == k && text == t; }
};
/// What cannot be read, and where.
class SyntaxTrouble : public Trouble {
 public:
  SyntaxTrouble(int at, const std::string& what) : Trouble(what), line(at) {}
  int line;
};
/// White space beside tags already taken out, comments gone. The last token is `end`.
std::vector<Token> tokenize(std::string_view source);

// ---- expressions -----------------------------------------------------------------------------

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Argument {
  std::string name;  // empty: by position
  ExprPtr value;
};

enum class Operator : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  floor_divide,
  modulo,
  power,
  equal,
  unequal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in
};

struct Expr {
  enum class Kind : std::uint8_t {
    constant,  // constant
    name,      // text
    list,
    tuple,      // parts
    dict,       // parts: key, value, key, value ...
    attribute,  // parts[0].text
    item,       // parts[0][parts[1]]
    slice,      // parts[0][parts[1]:parts[2]:parts[3]], of which the last three may be null
    call,       // parts[0](arguments)
    filter,     // parts[0] | text(arguments); parts[0] may be null: what a block holds
    test,       // parts[0] is text(arguments)
    negative,
    positive,
    inverse,  // parts[0]
    binary,   // parts[0] operators[0] parts[1]
    compare,  // parts[0] operators[0] parts[1] operators[1] parts[2] ...
    both,
    either,       // parts[0] and / or parts[1]
    concat,       // parts, as text
    conditional,  // parts[1] if parts[0] else parts[2], which may be null
  };
  Kind kind = Kind::constant;
  int line = 1, depth = 1;
  std::string text;
  Value constant;
  std::vector<Operator> operators;
  std::vector<ExprPtr> parts;
  std::vector<Argument> arguments;
};

// ---- statements ------------------------------------------------------------------------------

struct Stmt;
using Block = std::vector<Stmt>;

struct Target {
  std::string name, attribute;  // attribute empty: a variable; else of a namespace
};

struct Branch {
  ExprPtr condition;
  Block body;
};

struct Parameter {
  std::string name;
  ExprPtr otherwise;  // may be null
};

struct Stmt {
  enum class Kind : std::uint8_t {
    data,         // text
    output,       // value
    conditional,  // branches, otherwise
    loop,         // for targets in value if condition: body, otherwise
    set,          // targets = value
    set_block,    // targets = body, through the filters of value if there are any
    macro,        // text(parameters): body
    filter,       // body through the filters of value
    generation,   // body
    leave,
    next,  // break, continue
  };
  Kind kind = Kind::data;
  int line = 1;
  std::string text;
  ExprPtr value, condition;
  std::vector<Target> targets;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Block body, otherwise;
};

/// What a macro's name stands for.
struct Macro {
  const Stmt* statement;
};

struct Template {
  Block body;
  bool marks_generation = false;
};
Template parse(const std::vector<Token>&);

/// Whether there is a filter, a test of that name: what a template cannot have is found when it is read.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace mezzo::text::jinja

struct mezzo::text::JinjaTemplate::Tree {
  std::string name;
  jinja::Template parsed;
};
