// jinja_tests.cpp - tests: x is name(argument).
#include <algorithm>

#include <fmt/core.h>

#include "text/jinja_arithmetic.h"
#include "text/jinja_builtins.h"
#include "text/jinja_text.h"
#include "text/jinja_tree.h"

namespace mezzo::text::jinja {
namespace {

const Value& other(const Places& a) {
  if (!a[0]) throw Trouble("this test takes a value to compare with");
  return *a[0];
}

Value remainder_is(std::int64_t wanted, Run& run, const Value& x, const Value& by) {
  return run.equal(arithmetic(run, Operator::modulo, x, by), wanted);
}

/// Whether a text has letters, and all those that have a case are of this one.
Value has_case(Run& run, const Value& x, std::string (*convert)(std::string_view)) {
  const std::string text = run.text(x);
  return convert(text) == text && (upper(text) != text || lower(text) != text);
}

Value is_sequence(const Value& x) { return x.text() || x.dict() || x.is<Undefined>() || (x.list() && x.list()->kind != List::Kind::generator); }

// clang-format off
constexpr Builtin kTests[] = {
    {"!=", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.equal(x, other(a))); }},
    {"<", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(x, other(a))); }},
    {"<=", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.less(other(a), x)); }},
    {"==", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.equal(x, other(a))); }},
    {">", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(other(a), x)); }},
    {">=", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.less(x, other(a))); }},
    {"boolean", "", [](Run&, const Value& x, const Places&) { return Value(x.is<bool>()); }},
    {"callable", "", [](Run&, const Value& x, const Places&) { return Value(x.is<const Macro*>() || x.is<Callable>() || x.is<Undefined>()); }},
    {"defined", "", [](Run&, const Value& x, const Places&) { return Value(!x.is<Undefined>()); }},
    {"divisibleby", "num", [](Run& run, const Value& x, const Places& a) { return remainder_is(0, run, x, other(a)); }},
    {"eq", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.equal(x, other(a))); }},
    {"equalto", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.equal(x, other(a))); }},
    {"even", "", [](Run& run, const Value& x, const Places&) { return remainder_is(0, run, x, std::int64_t{2}); }},
    {"false", "", [](Run&, const Value& x, const Places&) { return Value(x.is<bool>() && !x.get<bool>()); }},
    {"float", "", [](Run&, const Value& x, const Places&) { return Value(x.is<double>()); }},
    {"ge", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.less(x, other(a))); }},
    {"greaterthan", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(other(a), x)); }},
    {"gt", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(other(a), x)); }},
    {"in", "seq", [](Run& run, const Value& x, const Places& a) { return Value(run.contains(other(a), x)); }},
    {"integer", "", [](Run&, const Value& x, const Places&) { return Value(x.is<std::int64_t>()); }},
    {"iterable", "", [](Run&, const Value& x, const Places&) { return Value(x.text() || x.list() || x.dict() || x.is<Undefined>() || x.is<LoopRef>()); }},
    {"le", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.less(other(a), x)); }},
    {"lessthan", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(x, other(a))); }},
    {"lower", "", [](Run& run, const Value& x, const Places&) { return has_case(run, x, lower); }},
    {"lt", "other", [](Run& run, const Value& x, const Places& a) { return Value(run.less(x, other(a))); }},
    {"mapping", "", [](Run&, const Value& x, const Places&) { return Value(x.dict() != nullptr); }},
    {"ne", "other", [](Run& run, const Value& x, const Places& a) { return Value(!run.equal(x, other(a))); }},
    {"none", "", [](Run&, const Value& x, const Places&) { return Value(x.is<None>()); }},
    {"number", "", [](Run&, const Value& x, const Places&) { return Value(x.is_number()); }},
    {"odd", "", [](Run& run, const Value& x, const Places&) { return remainder_is(1, run, x, std::int64_t{2}); }},
    {"sameas", "other", [](Run& run, const Value& x, const Places& a) { return Value(x.held.index() == other(a).held.index() && run.equal(x, other(a))); }},
    {"sequence", "", [](Run&, const Value& x, const Places&) { return is_sequence(x); }},
    {"string", "", [](Run&, const Value& x, const Places&) { return Value(x.text() != nullptr); }},
    {"true", "", [](Run&, const Value& x, const Places&) { return Value(x.is<bool>() && x.get<bool>()); }},
    {"undefined", "", [](Run&, const Value& x, const Places&) { return Value(x.is<Undefined>()); }},
    {"upper", "", [](Run& run, const Value& x, const Places&) { return has_case(run, x, upper); }},
};
// clang-format on

const Builtin* test_named(std::string_view name) {
  const auto* found = std::lower_bound(std::begin(kTests), std::end(kTests), name, [](const Builtin& t, std::string_view n) { return t.name < n; });
  return found != std::end(kTests) && found->name == name ? found : nullptr;
}

}  // namespace

bool is_test(std::string_view name) { return test_named(name) != nullptr; }

bool apply_test(Run& run, std::string_view name, const Value& x, const Arguments& arguments) {
  return call(run, *test_named(name), x, arguments).get<bool>();
}

}  // namespace mezzo::text::jinja
