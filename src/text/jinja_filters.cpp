// jinja_filters.cpp - filters: x | name(arguments).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include <fmt/core.h>

#include "io/shown.h"
#include "text/jinja_builtins.h"
#include "text/jinja_text.h"
#include "text/jinja_tree.h"

namespace mezzo::text::jinja {
namespace {

bool flag(const Value* v, bool otherwise = false) { return v ? truth(*v) : otherwise; }

/// x.a.b or x.0 by a path "a.b" or an index: what filters take as `attribute`.
Value by_path(Run& run, const Value& x, const Value& path) {
  if (!path.text()) return item(run, x, path);
  Value value = x;
  for (std::string_view rest = *path.text(); !rest.empty();) {
    const std::string_view part = rest.substr(0, rest.find('.'));
    std::int64_t index = 0;
    const bool number = std::from_chars(part.data(), part.data() + part.size(), index).ptr == part.data() + part.size();
    value = item(run, value, number ? Value(index) : Value(part));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
  }
  return value;
}

/// What a list is sorted by: with letters of one case unless `case_sensitive`.
Value sort_key(Run& run, const Value& x, bool case_sensitive) { return x.text() && !case_sensitive ? Value(lower(run.text(x))) : x; }

/// Stable, in rising order of the key or falling.
template <class T, class Key> void sort_by(Run& run, std::vector<T>& items, bool reverse, const Key& key) {
  std::vector<std::pair<Value, T>> keyed;
  for (T& item : items) {
    Value k = key(item);
    keyed.emplace_back(std::move(k), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [&](const auto& a, const auto& b) { return reverse ? run.less(b.first, a.first) : run.less(a.first, b.first); });
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = std::move(keyed[i].second);
}

Value generator(std::vector<Value> items) { return make_list(std::move(items), List::Kind::generator); }

Value fall_back(Run&, const Value& x, const Places& a) {
  const bool missing = x.is<Undefined>() || (flag(a[1]) && !truth(x));
  return missing ? (a[0] ? *a[0] : Value(std::string())) : x;
}

Value size_of(Run& run, const Value& x, const Places&) {
  if (x.text()) run.charge(static_cast<std::int64_t>(x.text()->size()));
  if (x.text()) return static_cast<std::int64_t>(length(*x.text()));
  if (x.list() && x.list()->kind != List::Kind::generator) return static_cast<std::int64_t>(x.list()->items.size());
  if (x.dict()) return static_cast<std::int64_t>(x.dict()->members.size());
  if (x.is<Undefined>()) return std::int64_t{0};
  throw Trouble(fmt::format("{} has no length", kind_name(x)));
}

Value first(Run& run, const Value& x, const Places&) {
  auto items = run.items(x);
  return items.empty() ? Value::undefined("the first of nothing") : std::move(items.front());
}

Value last(Run& run, const Value& x, const Places&) {
  if (x.list() && x.list()->kind == List::Kind::generator) throw Trouble("a generator has no last one before it is made a list");
  auto items = run.items(x);
  return items.empty() ? Value::undefined("the last of nothing") : std::move(items.back());
}

Value join(Run& run, const Value& x, const Places& a) {
  const std::string between = a[0] ? run.text(*a[0]) : std::string();
  std::string out;
  bool first = true;
  for (const Value& item : run.items(x)) {
    run.charge(static_cast<std::int64_t>(between.size()));
    if (!std::exchange(first, false)) out += between;
    out += run.text(a[1] ? by_path(run, item, *a[1]) : item);
  }
  return out;
}

Value trim(Run& run, const Value& x, const Places& a) {
  const std::string text = run.text(x);
  if (!a[0] || a[0]->is<None>()) return strip_right(strip_left(text));
  const std::string& chars = as_text(*a[0]);
  run.charge(static_cast<std::int64_t>(text.size() * chars.size()));
  return strip_right(strip_left(text, chars), chars);
}

/// Words begin behind white space, - and what opens a bracket.
Value title(Run& run, const Value& x, const Places&) {
  std::string out;
  bool begins = true;
  for_each_code_point(run.text(x), [&](std::string_view piece, std::int32_t c) {
    out += begins ? upper(piece) : lower(piece);
    begins = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  });
  return out;
}

Value replace(Run& run, const Value& x, const Places& a) {
  if (!a[0] || !a[1]) throw Trouble("`replace` takes what to replace, and with what");
  Arguments arguments{{run.text(*a[0]), run.text(*a[1])}, {}};
  if (a[2] && !a[2]->is<None>()) arguments.positional.push_back(*a[2]);
  return call_method(run, run.text(x), "replace", arguments);
}

Value indent(Run& run, const Value& x, const Places& a) {
  constexpr std::int64_t kWidest = 1000;
  std::string space;
  if (a[0] && a[0]->text()) space = *a[0]->text();
  else space.assign(static_cast<std::size_t>(std::clamp<std::int64_t>(a[0] ? as_whole(*a[0]) : 4, 0, kWidest)), ' ');
  const std::string text = as_text(x) + '\n';
  const auto all = lines(text);
  run.charge(static_cast<std::int64_t>(text.size()));
  run.charge(static_cast<std::int64_t>(all.size() * (space.size() + 1)));
  std::string out = flag(a[1]) ? space : "";
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (!all[i].empty() || flag(a[2]))) out += space;
    out += all[i];
  }
  return out;
}

/// The number at the beginning of a text without space around it, if it is the whole.
template <class T> std::optional<T> number_in(std::string_view text) {
  text = strip_right(strip_left(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Value whole(double x, const Value* otherwise) {
  if (!(std::fabs(x) < 0x1p63)) return otherwise ? *otherwise : Value(std::int64_t{0});
  return static_cast<std::int64_t>(x);
}

Value to_whole(Run&, const Value& x, const Places& a) {
  if (x.is_whole()) return x.whole();
  if (x.is<double>()) return whole(x.number(), a[0]);
  if (x.text()) {
    if (const auto n = number_in<std::int64_t>(*x.text())) return *n;
    if (const auto n = number_in<double>(*x.text())) return whole(*n, a[0]);
  }
  if (x.is<Undefined>()) fail_undefined(x);
  return a[0] ? *a[0] : Value(std::int64_t{0});
}

Value to_real(Run&, const Value& x, const Places& a) {
  if (x.is_number()) return x.number();
  if (x.text())
    if (const auto n = number_in<double>(*x.text())) return *n;
  if (x.is<Undefined>()) fail_undefined(x);
  return a[0] ? *a[0] : Value(0.0);
}

Value absolute(Run&, const Value& x, const Places&) {
  if (x.is<double>()) return std::fabs(x.number());
  const std::int64_t n = as_whole(x);
  if (n == INT64_MIN) throw Trouble("an integer of more than 64 bits");
  return n < 0 ? -n : n;
}

Value round(Run&, const Value& x, const Places& a) {
  if (x.is<Undefined>()) fail_undefined(x);
  if (!x.is_number()) throw Trouble(fmt::format("{} cannot be rounded", kind_name(x)));
  const std::int64_t digits = a[0] ? as_whole(*a[0]) : 0;
  const std::string method = a[1] ? as_text(*a[1]) : "common";
  if (digits < 0 || digits > 300) throw Trouble(fmt::format("`round` to {} digits is not supported", digits));
  if (method != "common" && method != "ceil" && method != "floor")
    throw Trouble(fmt::format("`round` knows common, ceil and floor, not `{}`", io::shown(method)));
  if (method == "common") {
    if (x.is_whole()) return x.whole();
    if (!std::isfinite(x.number())) return x;
    double out = 0;  // the nearest double to the nearest decimal, ties to even: Python's round
    const std::string decimal = fmt::format("{:.{}f}", x.number(), digits);
    std::from_chars(decimal.data(), decimal.data() + decimal.size(), out);
    return out;
  }
  const double scale = std::pow(10.0, static_cast<double>(digits)), scaled = x.number() * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

Value json(Run& run, const Value& x, const Places& a) {
  JsonStyle style;
  style.ensure_ascii = flag(a[1]);
  style.sort_keys = flag(a[3]);
  if (a[0] && !a[0]->is<None>()) {
    style.indent = a[0]->text() ? *a[0]->text() : std::string(static_cast<std::size_t>(std::clamp<std::int64_t>(as_whole(*a[0]), 0, 100)), ' ');
    style.item_separator = std::string(1, ',');
  }
  if (a[2] && !a[2]->is<None>()) {
    const auto both = run.items(*a[2]);
    if (both.size() != 2) throw Trouble("`tojson` takes two separators");
    style.item_separator = as_text(both[0]);
    style.key_separator = as_text(both[1]);
  }
  run.charge(extent(x).weight);
  style.limit = run.left();
  std::string out = to_json(x, style);
  run.charge(static_cast<std::int64_t>(out.size()));
  return out;
}

Value pairs(Run& run, const Value& x, const Places&) {
  if (x.is<Undefined>()) return generator({});
  if (!x.dict()) throw Trouble(fmt::format("`items` of {}, a dict was expected", kind_name(x)));
  std::vector<Value> items = run.items(call_method(run, x, "items", {}));
  return generator(std::move(items));
}

Value sorted_dict(Run& run, const Value& x, const Places& a) {
  const bool case_sensitive = flag(a[0]), reverse = flag(a[2]);
  const std::string by = a[1] ? as_text(*a[1]) : "key";
  if (by != "key" && by != "value") throw Trouble("`dictsort` is by key or by value");
  if (!x.dict()) throw Trouble(fmt::format("`dictsort` of {}, a dict was expected", kind_name(x)));
  auto items = run.items(call_method(run, x, "items", {}));
  sort_by(run, items, reverse, [&](const Value& pair) { return sort_key(run, pair.list()->items[by == "value"], case_sensitive); });
  return make_list(std::move(items));
}

Value sorted(Run& run, const Value& x, const Places& a) {
  auto items = run.items(x);
  sort_by(run, items, flag(a[0]), [&](const Value& v) { return sort_key(run, a[2] && !a[2]->is<None>() ? by_path(run, v, *a[2]) : v, flag(a[1])); });
  return make_list(std::move(items));
}

Value unique(Run& run, const Value& x, const Places& a) {
  std::vector<Value> out, keys;
  for (Value& v : run.items(x)) {
    const Value key = sort_key(run, a[1] ? by_path(run, v, *a[1]) : v, flag(a[0]));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& other) { return run.equal(key, other); })) continue;
    keys.push_back(key);
    out.push_back(std::move(v));
  }
  return generator(std::move(out));
}

Value extreme(Run& run, const Value& x, const Places& a, bool largest) {
  auto items = run.items(x);
  if (items.empty()) return Value::undefined(largest ? "the largest of nothing" : "the smallest of nothing");
  const auto key = [&](const Value& v) { return sort_key(run, a[1] ? by_path(run, v, *a[1]) : v, flag(a[0])); };
  std::size_t best = 0;
  for (std::size_t i = 1; i < items.size(); ++i)
    if (largest ? run.less(key(items[best]), key(items[i])) : run.less(key(items[i]), key(items[best]))) best = i;
  return std::move(items[best]);
}

Value sum(Run& run, const Value& x, const Places& a) {
  double real = 0;
  std::int64_t whole = 0;
  bool is_real = false;
  auto items = run.items(x);
  if (a[1]) items.insert(items.begin(), *a[1]);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Value v = a[0] && !a[0]->is<None>() && !(a[1] && i == 0) ? by_path(run, items[i], *a[0]) : items[i];
    if (v.is<Undefined>()) fail_undefined(v);
    if (!v.is_number()) throw Trouble(fmt::format("`sum` of {}, numbers were expected", kind_name(v)));
    if (v.is<double>()) is_real = true;
    else if (__builtin_add_overflow(whole, v.whole(), &whole)) throw Trouble("an integer of more than 64 bits");
    real += v.number();
  }
  return is_real ? Value(real) : Value(whole);
}

Value reversed(Run& run, const Value& x, const Places&) {
  if (!x.text()) {
    auto items = run.items(x);
    std::reverse(items.begin(), items.end());
    return generator(std::move(items));
  }
  auto letters = code_points(*x.text());
  run.charge(static_cast<std::int64_t>(letters.size() * sizeof(std::string_view)));
  std::string out;
  std::for_each(letters.rbegin(), letters.rend(), [&](std::string_view c) { out += c; });
  return out;
}

Value map(Run& run, const Value& x, const Places& a) {
  std::vector<Value> out;
  for (const Value& v : run.items(x)) {
    if (a[4]) {
      Value part = by_path(run, v, *a[4]);
      if (part.is<Undefined>() && a[5]) part = *a[5];
      out.push_back(std::move(part));
      continue;
    }
    if (!a[0] || !is_filter(as_text(*a[0]))) throw Trouble("`map` takes a filter's name, or attribute=");
    Arguments arguments;
    for (std::size_t i = 1; i < 4 && a[i]; ++i) arguments.positional.push_back(*a[i]);
    out.push_back(apply_filter(run, *a[0]->text(), v, arguments));
  }
  return generator(std::move(out));
}

/// Those that pass a test (or are true without one), or those that do not. Places: the attribute that is tested if there is to be one, test,
/// argument.
Value chosen(Run& run, const Value& x, const Value* path, const Value* test, const Value* argument, bool keep) {
  std::vector<Value> out;
  Arguments arguments;
  if (argument) arguments.positional.push_back(*argument);
  if (test && !is_test(as_text(*test))) throw Trouble(fmt::format("test `{}` is not supported", io::shown(*test->text())));
  for (Value& v : run.items(x)) {
    const Value part = path ? by_path(run, v, *path) : v;
    if ((test ? apply_test(run, *test->text(), part, arguments) : truth(part)) == keep) out.push_back(std::move(v));
  }
  return generator(std::move(out));
}
const Value* attribute_of(const Places& a) {
  if (!a[0]) throw Trouble("the name of an attribute was expected");
  return a[0];
}

// clang-format off
constexpr Builtin kFilters[] = {
    {"abs", "", absolute},
    {"capitalize", "", [](Run& run, const Value& x, const Places&) { return Value(capitalized(run.text(x))); }},
    {"count", "", size_of},
    {"d", "default_value boolean", fall_back},
    {"default", "default_value boolean", fall_back},
    {"dictsort", "case_sensitive by reverse", sorted_dict},
    {"first", "", first},
    {"float", "default", to_real},
    {"indent", "width first blank", indent},
    {"int", "default", to_whole},
    {"items", "", pairs},
    {"join", "d attribute", join},
    {"last", "", last},
    {"length", "", size_of},
    {"list", "", [](Run& run, const Value& x, const Places&) { return make_list(run.items(x)); }},
    {"lower", "", [](Run& run, const Value& x, const Places&) { return Value(lower(run.text(x))); }},
    {"map", "name first second third attribute default", map},
    {"max", "case_sensitive attribute", [](Run& run, const Value& x, const Places& a) { return extreme(run, x, a, true); }},
    {"min", "case_sensitive attribute", [](Run& run, const Value& x, const Places& a) { return extreme(run, x, a, false); }},
    {"reject", "name argument", [](Run& run, const Value& x, const Places& a) { return chosen(run, x, nullptr, a[0], a[1], false); }},
    {"rejectattr", "attribute name argument", [](Run& run, const Value& x, const Places& a) { return chosen(run, x, attribute_of(a), a[1], a[2], false); }},
    {"replace", "old new count", replace},
    {"reverse", "", reversed},
    {"round", "precision method", round},
    {"safe", "", [](Run& run, const Value& x, const Places&) { return Value(run.text(x)); }},  // nothing is escaped
    {"select", "name argument", [](Run& run, const Value& x, const Places& a) { return chosen(run, x, nullptr, a[0], a[1], true); }},
    {"selectattr", "attribute name argument", [](Run& run, const Value& x, const Places& a) { return chosen(run, x, attribute_of(a), a[1], a[2], true); }},
    {"sort", "reverse case_sensitive attribute", sorted},
    {"string", "", [](Run& run, const Value& x, const Places&) { return Value(run.text(x)); }},
    {"sum", "attribute start", sum},
    {"title", "", title},
    {"tojson", "indent ensure_ascii separators sort_keys", json},
    {"trim", "chars", trim},
    {"unique", "case_sensitive attribute", unique},
    {"upper", "", [](Run& run, const Value& x, const Places&) { return Value(upper(run.text(x))); }},
};
// clang-format on

const Builtin* filter_named(std::string_view name) {
  const auto* found =
      std::lower_bound(std::begin(kFilters), std::end(kFilters), name, [](const Builtin& f, std::string_view n) { return f.name < n; });
  return found != std::end(kFilters) && found->name == name ? found : nullptr;
}

}  // namespace

bool is_filter(std::string_view name) { return filter_named(name) != nullptr; }

Value apply_filter(Run& run, std::string_view name, const Value& x, const Arguments& arguments) {
  return call(run, *filter_named(name), x, arguments);
}

}  // namespace mezzo::text::jinja
