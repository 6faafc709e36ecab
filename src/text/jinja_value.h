// jinja_value.h - what a template computes with: Python's values, of which only namespaces can be changed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "io/json.h"

namespace mezzo::text::jinja {

struct Value;
struct Macro;  // a statement of the tree

/// What stops a rendering or a reading; whoever knows the line makes an Error of it.
class Trouble : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

using Members = std::vector<std::pair<std::string, Value>>;  // in order; looked through from the front

/// How far a value goes, its parts counted as often as it has them: what showing or comparing it costs.
struct Extent {
  int depth = 0;                // of lists and dicts in each other
  std::int64_t weight = 1;      // values, and bytes of text
  void add(const Value& part);  // Trouble beyond what may be
};

struct List {
  // A generator is what filters such as map and select give: it is true even if it is empty, has no length, and can be gone through once.
  enum class Kind : std::uint8_t { list, tuple, generator };
  std::vector<Value> items;
  Kind kind = Kind::list;
  Extent extent;
  mutable bool consumed = false;  // a generator
};
struct Dict {
  Members members;
  Extent extent;
};
/// What `namespace()` gives. It may hold itself, so whoever makes one empties it in the end.
struct Namespace {
  Members members;
};
/// `loop` inside of a for.
struct Loop {
  std::vector<Value> items;
  std::size_t index = 0;
  Extent extent;
};

struct None {};
/// A function of the language, or a method of a value, that is not called: it is there, and nothing else.
struct Callable {
  std::string_view name;  // of a table
};
struct Undefined {
  std::shared_ptr<const std::string> name;  // what was looked for
};
using Text = std::shared_ptr<const std::string>;
using ListRef = std::shared_ptr<const List>;
using DictRef = std::shared_ptr<const Dict>;
using NamespaceRef = std::shared_ptr<Namespace>;
using LoopRef = std::shared_ptr<Loop>;

struct Value {
  std::variant<Undefined, None, bool, std::int64_t, double, Text, ListRef, DictRef, NamespaceRef, LoopRef, const Macro*, Callable> held;

  Value() = default;
  Value(None) : held(None{}) {}
  Value(bool b) : held(b) {}
  Value(std::int64_t n) : held(n) {}
  Value(double x) : held(x) {}
  Value(std::string s) : held(std::make_shared<const std::string>(std::move(s))) {}
  Value(std::string_view s) : Value(std::string(s)) {}
  Value(const char*) = delete;  // which would be a bool
  Value(ListRef l) : held(std::move(l)) {}
  Value(DictRef d) : held(std::move(d)) {}
  Value(NamespaceRef n) : held(std::move(n)) {}
  Value(LoopRef l) : held(std::move(l)) {}
  Value(const Macro* m) : held(m) {}
  Value(Callable c) : held(c) {}
  static Value undefined(std::string name);

  template <class T> bool is() const noexcept { return std::holds_alternative<T>(held); }
  template <class T> const T& get() const { return std::get<T>(held); }

  const std::string* text() const noexcept { return is<Text>() ? get<Text>().get() : nullptr; }
  const List* list() const noexcept { return is<ListRef>() ? get<ListRef>().get() : nullptr; }
  const Dict* dict() const noexcept { return is<DictRef>() ? get<DictRef>().get() : nullptr; }
  bool is_number() const noexcept { return is<bool>() || is<std::int64_t>() || is<double>(); }
  bool is_whole() const noexcept { return is<bool>() || is<std::int64_t>(); }  // Python's booleans are integers
  std::int64_t whole() const { return is<bool>() ? get<bool>() : get<std::int64_t>(); }
  double number() const { return is<double>() ? get<double>() : static_cast<double>(whole()); }
};

Extent extent(const Value&);
Value make_list(std::vector<Value> items, List::Kind kind = List::Kind::list);
Value make_dict(Members members);
Value from_json(const io::Json&);

const Value* find(const Members&, std::string_view key) noexcept;
/// bool(value).
bool truth(const Value&);
/// "a string", "a list" ...: for messages.
std::string_view kind_name(const Value&);
/// str(value) and repr(value): what is undefined is empty. Trouble for what only Python could show.
std::string to_text(const Value&);
/// a == b.
bool equal(const Value& a, const Value& b);
/// a < b; Trouble if they have no order.
bool less(const Value& a, const Value& b);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  std::optional<std::string> indent = {};  // one level's; none: all on one line
  std::string item_separator = ", ", key_separator = ": ";
  std::int64_t limit = 64 << 20;  // bytes
};
/// json.dumps(value). Trouble beyond the limit, or a little later.
std::string to_json(const Value&, const JsonStyle&);

}  // namespace mezzo::text::jinja
