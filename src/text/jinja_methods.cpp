// jinja_methods.cpp - methods of strings, dicts and lists, as Python has them.
#include <algorithm>
#include <span>

#include <fmt/core.h>

#include "io/shown.h"
#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

namespace mezzo::text::jinja {
namespace {

const Value& needed(const Value* v) {
  if (!v) throw Trouble("an argument is missing");
  return *v;
}
bool given(const Value* v) { return v && !v->is<None>(); }

Value stripped(Run& run, const Value& x, const Places& a, bool left, bool right) {
  std::string_view text = *x.text();
  if (!given(a[0])) {
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
    return text;
  }
  const std::string& chars = as_text(*a[0]);
  run.charge(static_cast<std::int64_t>(text.size() * (chars.size() + 1)));
  if (left) text = strip_left(text, chars);
  if (right) text = strip_right(text, chars);
  return text;
}

/// Text cut where there is white space, at most `most` times from the left or the right; none at the ends of what is cut off.
std::vector<Value> words(std::string_view text, std::size_t most, bool from_left) {
  std::vector<std::pair<std::size_t, std::size_t>> found;  // begin, end
  bool inside = false;
  std::size_t at = 0;
  for_each_code_point(text, [&](std::string_view piece, std::int32_t c) {
    const bool letter = !is_space(c);
    if (letter && !std::exchange(inside, letter)) found.emplace_back(at, at);
    inside = letter;
    at += piece.size();
    if (letter) found.back().second = at;
  });
  if (!from_left) std::reverse(found.begin(), found.end());
  std::vector<Value> out;
  for (const auto& [begin, end] : found) {
    if (out.size() == most) {
      out.emplace_back(from_left ? text.substr(begin) : text.substr(0, end));
      break;
    }
    out.emplace_back(text.substr(begin, end - begin));
  }
  return out;
}

Value split(Run& run, const Value& x, const Places& a, bool from_left) {
  std::string_view text = *x.text();
  const std::size_t most = a[1] && as_whole(*a[1]) >= 0 ? static_cast<std::size_t>(as_whole(*a[1])) : SIZE_MAX;
  run.charge(static_cast<std::int64_t>(text.size() * sizeof(Value)));
  std::vector<Value> out;
  if (!given(a[0])) {
    out = words(text, most, from_left);
  } else {
    const std::string& between = as_text(*a[0]);
    if (between.empty()) throw Trouble("split() at an empty string");
    while (out.size() < most) {
      const std::size_t at = from_left ? text.find(between) : text.rfind(between);
      if (at == text.npos) break;
      out.emplace_back(from_left ? text.substr(0, at) : text.substr(at + between.size()));
      text = from_left ? text.substr(at + between.size()) : text.substr(0, at);
    }
    out.emplace_back(text);
  }
  if (!from_left) std::reverse(out.begin(), out.end());
  return make_list(std::move(out));
}

Value replaced(Run& run, const Value& x, const Places& a) {
  const std::string_view text = *x.text();
  const std::string &old = as_text(needed(a[0])), &by = as_text(needed(a[1]));
  std::int64_t most = a[2] ? as_whole(*a[2]) : -1;
  run.charge(static_cast<std::int64_t>(text.size()) + 1);
  std::string out;
  const auto put = [&] {
    run.charge(static_cast<std::int64_t>(by.size()));
    out += by;
    --most;
  };
  if (old.empty()) {  // before every code point, and at the end
    for (const std::string_view c : code_points(text)) {
      if (most != 0) put();
      out += c;
    }
    if (most != 0) put();
    return out;
  }
  std::size_t from = 0;
  for (std::size_t at; most != 0 && (at = text.find(old, from)) != text.npos; from = at + old.size()) {
    out += text.substr(from, at - from);
    put();
  }
  return out += text.substr(from);
}

/// Whether the text begins or ends with a string, or with one of several.
Value has_end(Run& run, const Value& x, const Places& a, bool (*has)(std::string_view, std::string_view)) {
  const Value& wanted = needed(a[0]);
  if (!wanted.list()) return has(*x.text(), as_text(wanted));
  const auto all = run.items(wanted);
  return std::any_of(all.begin(), all.end(), [&](const Value& v) { return has(*x.text(), as_text(v)); });
}

Value found_at(Run& run, const Value& x, const Places& a, bool first) {
  const std::string& text = *x.text();
  run.charge(static_cast<std::int64_t>(text.size()));
  const std::size_t at = first ? text.find(as_text(needed(a[0]))) : text.rfind(as_text(needed(a[0])));
  return at == text.npos ? std::int64_t{-1} : static_cast<std::int64_t>(length(std::string_view(text).substr(0, at)));
}

Value count_in(Run& run, const Value& x, const Places& a) {
  const std::string &text = *x.text(), &wanted = as_text(needed(a[0]));
  run.charge(static_cast<std::int64_t>(text.size()));
  if (wanted.empty()) return static_cast<std::int64_t>(length(text)) + 1;
  std::int64_t n = 0;
  for (std::size_t at = 0; (at = text.find(wanted, at)) != text.npos; at += wanted.size()) ++n;
  return n;
}

/// Not empty, and all of one kind.
Value all_are(const Value& x, bool (*is)(std::int32_t)) {
  bool all = !x.text()->empty();
  for_each_code_point(*x.text(), [&](std::string_view, std::int32_t c) { all = all && is(c); });
  return all;
}

Value joined(Run& run, const Value& x, const Places& a) {
  std::string out;
  bool first = true;
  for (const Value& v : run.items(needed(a[0]))) {
    run.charge(static_cast<std::int64_t>(x.text()->size() + as_text(v).size()));
    if (!std::exchange(first, false)) out += *x.text();
    out += as_text(v);
  }
  return out;
}

Value split_lines(Run& run, const Value& x, const Places&) {
  run.charge(static_cast<std::int64_t>(x.text()->size() * sizeof(Value)));
  std::vector<Value> out;
  for (const std::string_view line : lines(*x.text())) out.emplace_back(line);
  return make_list(std::move(out));
}

Value without_end(const Value& x, const Places& a, bool prefix) {
  const std::string_view text = *x.text(), end = as_text(needed(a[0]));
  if (prefix) return text.starts_with(end) ? text.substr(end.size()) : text;
  return text.ends_with(end) ? text.substr(0, text.size() - end.size()) : text;
}

bool begins(std::string_view text, std::string_view with) { return text.starts_with(with); }
bool ends(std::string_view text, std::string_view with) { return text.ends_with(with); }

// clang-format off
constexpr Builtin kOfStrings[] = {
    {"capitalize", "", [](Run&, const Value& x, const Places&) { return Value(capitalized(*x.text())); }},
    {"count", "sub", count_in},
    {"endswith", "suffix", [](Run& run, const Value& x, const Places& a) { return has_end(run, x, a, ends); }},
    {"find", "sub", [](Run& run, const Value& x, const Places& a) { return found_at(run, x, a, true); }},
    {"isalnum", "", [](Run&, const Value& x, const Places&) { return all_are(x, [](std::int32_t c) { return is_letter(c) || is_digit(c); }); }},
    {"isalpha", "", [](Run&, const Value& x, const Places&) { return all_are(x, [](std::int32_t c) { return is_letter(c); }); }},
    {"isdigit", "", [](Run&, const Value& x, const Places&) { return all_are(x, [](std::int32_t c) { return is_digit(c); }); }},
    {"isspace", "", [](Run&, const Value& x, const Places&) { return all_are(x, [](std::int32_t c) { return is_space(c); }); }},
    {"join", "iterable", joined},
    {"lower", "", [](Run&, const Value& x, const Places&) { return Value(lower(*x.text())); }},
    {"lstrip", "chars", [](Run& run, const Value& x, const Places& a) { return stripped(run, x, a, true, false); }},
    {"removeprefix", "prefix", [](Run&, const Value& x, const Places& a) { return without_end(x, a, true); }},
    {"removesuffix", "suffix", [](Run&, const Value& x, const Places& a) { return without_end(x, a, false); }},
    {"replace", "old new count", replaced},
    {"rfind", "sub", [](Run& run, const Value& x, const Places& a) { return found_at(run, x, a, false); }},
    {"rsplit", "sep maxsplit", [](Run& run, const Value& x, const Places& a) { return split(run, x, a, false); }},
    {"rstrip", "chars", [](Run& run, const Value& x, const Places& a) { return stripped(run, x, a, false, true); }},
    {"split", "sep maxsplit", [](Run& run, const Value& x, const Places& a) { return split(run, x, a, true); }},
    {"splitlines", "", split_lines},
    {"startswith", "prefix", [](Run& run, const Value& x, const Places& a) { return has_end(run, x, a, begins); }},
    {"strip", "chars", [](Run& run, const Value& x, const Places& a) { return stripped(run, x, a, true, true); }},
    {"title", "", [](Run&, const Value& x, const Places&) { return Value(titled(*x.text())); }},
    {"upper", "", [](Run&, const Value& x, const Places&) { return Value(upper(*x.text())); }},
};

constexpr Builtin kOfDicts[] = {
    {"copy", "", [](Run&, const Value& x, const Places&) { return x; }},
    {"get", "key default", [](Run& run, const Value& x, const Places& a) {
       run.charge(static_cast<std::int64_t>(x.dict()->members.size()));
       const Value* member = needed(a[0]).text() ? find(x.dict()->members, *a[0]->text()) : nullptr;
       return member ? *member : a[1] ? *a[1] : Value(None{});
     }},
    {"items", "", [](Run& run, const Value& x, const Places&) {
       std::vector<Value> out;
       run.charge(extent(x).weight * static_cast<std::int64_t>(sizeof(Value)));
       for (const auto& [key, value] : x.dict()->members) out.push_back(make_list({Value(key), value}, List::Kind::tuple));
       return make_list(std::move(out));
     }},
    {"keys", "", [](Run& run, const Value& x, const Places&) { return make_list(run.items(x)); }},
    {"values", "", [](Run& run, const Value& x, const Places&) {
       std::vector<Value> out;
       run.charge(static_cast<std::int64_t>(x.dict()->members.size() * sizeof(Value)));
       for (const auto& m : x.dict()->members) out.push_back(m.second);
       return make_list(std::move(out));
     }},
};

constexpr Builtin kOfLists[] = {
    {"count", "value", [](Run& run, const Value& x, const Places& a) {
       const auto& items = x.list()->items;
       return Value(static_cast<std::int64_t>(std::count_if(items.begin(), items.end(), [&](const Value& v) { return run.equal(v, needed(a[0])); })));
     }},
    {"index", "value", [](Run& run, const Value& x, const Places& a) {
       const auto& items = x.list()->items;
       const auto at = std::find_if(items.begin(), items.end(), [&](const Value& v) { return run.equal(v, needed(a[0])); });
       if (at == items.end()) throw Trouble("index() of what is not in the list");
       return Value(static_cast<std::int64_t>(at - items.begin()));
     }},
};
// clang-format on

}  // namespace

Value call_method(Run& run, const Value& x, std::string_view name, const Arguments& arguments) {
  if (x.is<Undefined>()) fail_undefined(x);
  std::span<const Builtin> methods;
  if (x.text()) methods = kOfStrings;
  else if (x.dict()) methods = kOfDicts;
  else if (x.list() && x.list()->kind != List::Kind::generator) methods = kOfLists;
  const auto found = std::find_if(methods.begin(), methods.end(), [&](const Builtin& m) { return m.name == name; });
  if (found == methods.end()) throw Trouble(fmt::format("method `{}` of {} is not supported", io::shown(name), kind_name(x)));
  if (x.text()) run.charge(static_cast<std::int64_t>(x.text()->size()));
  return call(run, *found, x, arguments);
}

}  // namespace mezzo::text::jinja
