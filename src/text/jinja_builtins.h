// jinja_builtins.h - what the language brings: filters, tests, methods of values, functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace mezzo::text::jinja {

/// A rendering's account, and what needs it.
class Run {
 public:
  Run(std::int64_t limit, std::int64_t now) : limit_(limit), left_(limit), now_(now) {}
  /// Trouble when this much more work is too much.
  void charge(std::int64_t work) {
    if (work > left_) out_of_work();
    left_ -= work;
  }
  std::int64_t left() const noexcept { return left_; }
  std::int64_t now() const noexcept { return now_; }

  /// str(value), list(value), a == b, a < b, and item in container.
  std::string text(const Value&);
  std::vector<Value> items(const Value&);
  bool equal(const Value& a, const Value& b);
  bool less(const Value& a, const Value& b);
  bool contains(const Value& container, const Value& item);

 private:
  [[noreturn]] void out_of_work() const;
  std::int64_t limit_, left_, now_;
};

struct Arguments {
  std::vector<Value> positional;
  Members named;
};

Value apply_filter(Run&, std::string_view name, const Value& x, const Arguments&);
bool apply_test(Run&, std::string_view name, const Value& x, const Arguments&);
/// x.name(arguments), for what is not a macro.
Value call_method(Run&, const Value& x, std::string_view name, const Arguments&);
/// `range`, `namespace` ...: what their names stand for where no variable has them; undefined if there is no such function.
Value find_function(std::string_view name);
Value call_function(Run&, std::string_view name, const Arguments&);

/// x.name and x[key]: undefined if there is none. Trouble if x is.
Value attribute(const Value& x, std::string_view name);
Value item(Run&, const Value& x, const Value& key);
[[noreturn]] void fail_undefined(const Value&);

// ---- for the tables of builtins ------------------------------------------------------------------

/// Arguments by the place of their parameter; null: not given.
using Places = std::array<const Value*, 6>;
struct Builtin {
  std::string_view name;
  std::string_view parameters;  // names, with a space between
  Value (*call)(Run&, const Value& x, const Places& a);
};
/// Trouble for an argument that has no parameter.
Value call(Run&, const Builtin&, const Value& x, const Arguments&);

/// What an argument has to be: Trouble otherwise.
const std::string& as_text(const Value&);
std::int64_t as_whole(const Value&);

}  // namespace mezzo::text::jinja
