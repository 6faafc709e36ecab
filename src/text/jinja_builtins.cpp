// jinja_builtins.cpp - what filters, tests, methods and functions share, attributes and items, and the functions.
#include "text/jinja_builtins.h"

#include <algorithm>
#include <ctime>

#include <fmt/core.h>

#include "io/shown.h"
#include "text/jinja_scopes.h"
#include "text/jinja_text.h"

namespace mezzo::text::jinja {
namespace {

Value from_members(Run& run, const Arguments& a, std::string_view function, bool space) {
  if (a.positional.size() > 1 || (a.positional.size() == 1 && !a.positional[0].dict()))
    throw Trouble(fmt::format("{}() takes one dict and named arguments", function));
  Members members = a.positional.empty() ? Members() : a.positional[0].dict()->members;
  for (const auto& [name, value] : a.named) set_member(members, name, value);
  for (const auto& m : members) run.charge(static_cast<std::int64_t>(m.first.size() + sizeof m));
  run.charge(sizeof(Namespace));
  if (!space) return make_dict(std::move(members));
  auto out = std::make_shared<Namespace>();
  out->members = std::move(members);
  return NamespaceRef(std::move(out));
}

Value range(Run& run, const Arguments& a) {
  if (a.positional.empty() || a.positional.size() > 3 || !a.named.empty()) throw Trouble("range() takes one to three integers");
  std::int64_t bounds[3] = {0, 0, 1};
  if (a.positional.size() == 1) bounds[1] = as_whole(a.positional[0]);
  else
    for (std::size_t i = 0; i < a.positional.size(); ++i) bounds[i] = as_whole(a.positional[i]);
  const auto [begin, end, step] = bounds;
  if (step == 0) throw Trouble("range() with a step of 0");
  const double count = (static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step);
  constexpr double kMost = 100'000;  // the sandbox's own
  if (count > kMost) throw Trouble(fmt::format("range() of more than {} integers", kMost));
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
    items.emplace_back(i);
    if (step > 0 ? i > INT64_MAX - step : i < INT64_MIN - step) break;
  }
  run.charge(static_cast<std::int64_t>(items.size() * sizeof(Value)));
  return make_list(std::move(items));
}

Value strftime_now(Run& run, const Arguments& a) {
  if (a.positional.size() != 1 || !a.named.empty()) throw Trouble("strftime_now() takes a format");
  const std::string format = as_text(a.positional[0]) + '.';  // so that no result is empty, which stands for too little room
  const auto now = static_cast<std::time_t>(run.now());
  std::tm local{};
  ::localtime_r(&now, &local);
  char out[512];
  const std::size_t n = std::strftime(out, sizeof out, format.c_str(), &local);
  if (n == 0) throw Trouble("strftime_now() with a long format");
  return std::string(out, n - 1);
}

constexpr std::string_view kFunctions[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};

constexpr std::string_view kMethods[] = {  // of dicts; those that change one are not for calling
    "items", "keys", "values", "get", "copy", "pop", "popitem", "update", "setdefault", "clear", "fromkeys"};

Value loop_attribute(const Loop& l, std::string_view name) {
  const auto n = static_cast<std::int64_t>(l.items.size()), i = static_cast<std::int64_t>(l.index);
  if (name == "index") return i + 1;
  if (name == "index0") return i;
  if (name == "revindex") return n - i;
  if (name == "revindex0") return n - i - 1;
  if (name == "first") return i == 0;
  if (name == "last") return i + 1 == n;
  if (name == "length") return n;
  if (name == "depth") return std::int64_t{1};
  if (name == "depth0") return std::int64_t{0};
  if (name == "previtem") return i > 0 ? l.items[l.index - 1] : Value::undefined("loop.previtem");
  if (name == "nextitem") return i + 1 < n ? l.items[l.index + 1] : Value::undefined("loop.nextitem");
  throw Trouble(fmt::format("`loop.{}` is not supported", io::shown(name)));
}

}  // namespace

// ---- Run -----------------------------------------------------------------------------------------

void Run::out_of_work() const { throw Trouble(fmt::format("more than {} steps and bytes of work", limit_)); }

std::string Run::text(const Value& v) {
  charge(extent(v).weight);
  return to_text(v);
}

std::vector<Value> Run::items(const Value& v) {
  std::vector<Value> out;
  if (const List* l = v.list()) {
    charge(static_cast<std::int64_t>(l->items.size() * sizeof(Value)));
    if (l->kind == List::Kind::generator && std::exchange(l->consumed, true)) return out;
    out = l->items;
  } else if (const Dict* d = v.dict()) {
    for (const auto& m : d->members) {
      charge(static_cast<std::int64_t>(m.first.size() + sizeof(Value)));
      out.emplace_back(m.first);
    }
  } else if (const std::string* s = v.text()) {
    charge(static_cast<std::int64_t>(s->size() * 2 * sizeof(Value)));
    for (const std::string_view c : code_points(*s)) out.emplace_back(c);
  } else if (!v.is<Undefined>()) {
    throw Trouble(fmt::format("{} cannot be gone through", kind_name(v)));
  }
  return out;
}

bool Run::equal(const Value& a, const Value& b) {
  charge(std::min(extent(a).weight, extent(b).weight));
  return jinja::equal(a, b);
}

bool Run::less(const Value& a, const Value& b) {
  charge(std::min(extent(a).weight, extent(b).weight));
  return jinja::less(a, b);
}

bool Run::contains(const Value& container, const Value& item) {
  if (const std::string* s = container.text()) {
    if (!item.text()) throw Trouble(fmt::format("{} `in` a string, a string was expected", kind_name(item)));
    charge(static_cast<std::int64_t>(s->size()));
    return s->find(*item.text()) != s->npos;
  }
  if (const Dict* d = container.dict()) {
    charge(static_cast<std::int64_t>(d->members.size()));
    return item.text() && find(d->members, *item.text());
  }
  const auto all = items(container);
  return std::any_of(all.begin(), all.end(), [&](const Value& v) { return equal(v, item); });
}

// ---- attributes and items ------------------------------------------------------------------------

void fail_undefined(const Value& v) {
  const auto& name = v.get<Undefined>().name;
  throw Trouble(fmt::format("`{}` is undefined", name ? io::shown(*name) : "a value"));
}

Value attribute(const Value& x, std::string_view name) {
  if (x.is<Undefined>()) fail_undefined(x);
  if (x.is<LoopRef>()) return loop_attribute(*x.get<LoopRef>(), name);
  const Members* members = x.is<NamespaceRef>() ? &x.get<NamespaceRef>()->members : nullptr;
  if (const Dict* d = x.dict()) {
    if (const auto* method = std::find(std::begin(kMethods), std::end(kMethods), name); method != std::end(kMethods)) return Callable{*method};
    members = &d->members;
  }
  const Value* member = members ? find(*members, name) : nullptr;
  return member ? *member : Value::undefined(std::string(name));
}

Value item(Run& run, const Value& x, const Value& key) {
  if (x.is<Undefined>()) fail_undefined(x);
  if (const Dict* d = x.dict(); d && key.text())
    if (const Value* member = find(d->members, *key.text())) return *member;
  if (key.text()) return attribute(x, *key.text());
  if (key.is_whole() && (x.text() || (x.list() && x.list()->kind != List::Kind::generator))) {
    std::vector<std::string_view> letters;
    if (x.text()) {
      run.charge(static_cast<std::int64_t>(x.text()->size()));
      letters = code_points(*x.text());
    }
    const auto size = static_cast<std::int64_t>(x.text() ? letters.size() : x.list()->items.size());
    const std::int64_t i = key.whole() < 0 ? key.whole() + size : key.whole();
    if (i >= 0 && i < size) return x.text() ? Value(letters[static_cast<std::size_t>(i)]) : x.list()->items[static_cast<std::size_t>(i)];
  }
  return Value::undefined(fmt::format("[{}]", extent(key).weight < 100 && key.is_number() ? to_text(key) : std::string(kind_name(key))));
}

// ---- calls ---------------------------------------------------------------------------------------

Value call(Run& run, const Builtin& builtin, const Value& x, const Arguments& arguments) {
  Places places{};
  std::size_t count = 0;
  const auto place_of = [&](std::string_view name) {
    std::size_t place = 0;
    for (std::string_view rest = builtin.parameters; !rest.empty(); ++place) {
      const std::string_view parameter = rest.substr(0, rest.find(' '));
      if (parameter == name) return place;
      rest.remove_prefix(std::min(rest.size(), parameter.size() + 1));
    }
    count = place;
    return places.size();
  };
  place_of({});
  if (arguments.positional.size() > count)
    throw Trouble(fmt::format("`{}` was given {} arguments, at most {} were expected", builtin.name, arguments.positional.size(), count));
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) places[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const std::size_t place = place_of(name);
    if (place == places.size() || places[place])
      throw Trouble(fmt::format("`{}` has no argument `{}`, or has it already", builtin.name, io::shown(name)));
    places[place] = &value;
  }
  return builtin.call(run, x, places);
}

const std::string& as_text(const Value& v) {
  if (v.is<Undefined>()) fail_undefined(v);
  if (!v.text()) throw Trouble(fmt::format("{}, a string was expected", kind_name(v)));
  return *v.text();
}

std::int64_t as_whole(const Value& v) {
  if (v.is<Undefined>()) fail_undefined(v);
  if (!v.is_whole()) throw Trouble(fmt::format("{}, an integer was expected", kind_name(v)));
  return v.whole();
}

Value find_function(std::string_view name) {
  const auto* found = std::find(std::begin(kFunctions), std::end(kFunctions), name);
  return found == std::end(kFunctions) ? Value::undefined(std::string(name)) : Value(Callable{*found});
}

Value call_function(Run& run, std::string_view name, const Arguments& a) {
  if (name == "range") return range(run, a);
  if (name == "dict") return from_members(run, a, name, false);
  if (name == "namespace") return from_members(run, a, name, true);
  if (name == "strftime_now") return strftime_now(run, a);
  if (name != "raise_exception") throw Trouble(fmt::format("`{}` is a method, and of nothing", name));
  if (a.positional.size() != 1 || !a.named.empty()) throw Trouble("raise_exception() takes a message");
  throw Trouble(fmt::format("the template refuses this: {}", io::shown(run.text(a.positional[0]))));
}

}  // namespace mezzo::text::jinja
