// jinja_value.cpp - values: made, compared, shown as Python shows them.
#include "text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "text/jinja_text.h"

namespace mezzo::text::jinja {
namespace {

constexpr int kDeepest = 100;
constexpr std::int64_t kHeaviest = 64 << 20;

template <class... F> struct Overloaded : F... { using F::operator()...; };
template <class... F> Overloaded(F...) -> Overloaded<F...>;

[[noreturn]] void too_deep() { throw Trouble(fmt::format("lists and dicts more than {} deep in each other", kDeepest)); }

/// The shortest digits that read back as x, laid out as Python does: with an exponent from 1e16 on and below 1e-4.
std::string real_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x < 0 ? "-inf" : "inf";
  const double a = std::fabs(x);
  char buffer[40];
  const bool exponent = a != 0 && (a < 1e-4 || a >= 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, exponent ? std::chars_format::scientific : std::chars_format::fixed).ptr;
  std::string out(buffer, end);
  if (!exponent && out.find('.') == out.npos) out += ".0";
  return out;
}

std::string in_quotes(std::string_view s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, quote);
  for_each_code_point(s, [&](std::string_view piece, std::int32_t c) {
    if (c == '\n') out += "\\n";
    else if (c == '\r') out += "\\r";
    else if (c == '\t') out += "\\t";
    else if (c == quote || c == '\\') (out += '\\') += piece;
    else if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) out += fmt::format("\\x{:02x}", c);
    else out += piece;
  });
  return out += quote;
}

std::string shown(const Value& v, bool repr) {
  const auto joined = [](const auto& items, std::string_view open, std::string_view close, const auto& one) {
    std::string out(open);
    for (const auto& item : items) (out += out.size() == open.size() ? "" : ", ") += one(item);
    return out += close;
  };
  return std::visit(Overloaded{
                        [](const Undefined&) { return std::string(); },
                        [](None) { return std::string("None"); },
                        [](bool b) { return std::string(b ? "True" : "False"); },
                        [](std::int64_t n) { return std::to_string(n); },
                        [](double x) { return real_text(x); },
                        [&](const Text& s) { return repr ? in_quotes(*s) : *s; },
                        [&](const ListRef& l) {
                          const bool tuple = l->kind == List::Kind::tuple;
                          if (l->kind == List::Kind::generator)
                            throw Trouble("a generator cannot be written: `| list` or `| join` makes one text of it");
                          return joined(l->items, tuple ? "(" : "[", tuple ? (l->items.size() == 1 ? ",)" : ")") : "]",
                                        [](const Value& item) { return shown(item, true); });
                        },
                        [&](const DictRef& d) {
                          return joined(d->members, "{", "}", [](const auto& m) { return in_quotes(m.first) + ": " + shown(m.second, true); });
                        },
                        [&](const auto&) -> std::string { throw Trouble(fmt::format("{} cannot be written", kind_name(v))); },
                    },
                    v.held);
}

/// -1, 0 or 1; Trouble if one of them is a NaN or they have no order.
int order(const Value& a, const Value& b) {
  const auto sign = [](const auto& x, const auto& y) { return x < y ? -1 : y < x ? 1 : 0; };
  if (a.is_whole() && b.is_whole()) return sign(a.whole(), b.whole());
  if (a.is_number() && b.is_number()) return sign(a.number(), b.number());
  if (a.text() && b.text()) return sign(*a.text(), *b.text());
  if (a.list() && b.list() && a.list()->kind == b.list()->kind && a.list()->kind != List::Kind::generator) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (std::size_t i = 0; i < x.size() && i < y.size(); ++i)
      if (!equal(x[i], y[i])) return order(x[i], y[i]);
    return sign(x.size(), y.size());
  }
  throw Trouble(fmt::format("{} and {} have no order", kind_name(a), kind_name(b)));
}

// ---- JSON ------------------------------------------------------------------------------------

void json_text(std::string& out, std::string_view s, bool ascii) {
  out += '"';
  for_each_code_point(s, [&](std::string_view piece, std::int32_t c) {
    switch (c) {
      case '"': out += "\\\""; return;
      case '\\': out += "\\\\"; return;
      case '\n': out += "\\n"; return;
      case '\r': out += "\\r"; return;
      case '\t': out += "\\t"; return;
      case '\b': out += "\\b"; return;
      case '\f': out += "\\f"; return;
      default: break;
    }
    if (c >= 0x20 && (c < 0x7F || !ascii)) out += piece;
    else if (c < 0x10000) out += fmt::format("\\u{:04x}", c);
    else out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + (c & 0x3FF));
  });
  out += '"';
}

void json_value(std::string& out, const Value& v, const JsonStyle& style, int level) {
  const auto new_line = [&](int at) {
    if (!style.indent) return;
    out += '\n';
    while (at-- > 0) out += *style.indent;
  };
  const auto sequence = [&](char open, char close, const auto& items, const auto& one) {
    out += open;
    bool first = true;
    for (const auto& item : items) {
      if (!std::exchange(first, false)) out += style.item_separator;
      if (static_cast<std::int64_t>(out.size()) > style.limit) throw Trouble(fmt::format("more than {} bytes of JSON", style.limit));
      new_line(level + 1);
      one(item);
    }
    if (!first) new_line(level);
    out += close;
  };
  if (v.is<None>()) {
    out += "null";
  } else if (v.is<bool>()) {
    out += v.get<bool>() ? "true" : "false";
  } else if (v.is<double>() && !std::isfinite(v.number())) {
    out += std::isnan(v.number()) ? "NaN" : v.number() < 0 ? "-Infinity" : "Infinity";
  } else if (v.is_number()) {
    out += to_text(v);
  } else if (v.text()) {
    json_text(out, *v.text(), style.ensure_ascii);
  } else if (v.list() && v.list()->kind != List::Kind::generator) {
    sequence('[', ']', v.list()->items, [&](const Value& item) { json_value(out, item, style, level + 1); });
  } else if (v.dict()) {
    std::vector<const std::pair<std::string, Value>*> members;
    for (const auto& m : v.dict()->members) members.push_back(&m);
    if (style.sort_keys) std::sort(members.begin(), members.end(), [](auto a, auto b) { return a->first < b->first; });
    sequence('{', '}', members, [&](const auto* m) {
      json_text(out, m->first, style.ensure_ascii);
      out += style.key_separator;
      json_value(out, m->second, style, level + 1);
    });
  } else {
    throw Trouble(fmt::format("{} cannot be written as JSON", kind_name(v)));
  }
}

}  // namespace

Value Value::undefined(std::string name) {
  Value v;
  v.held = Undefined{std::make_shared<const std::string>(std::move(name))};
  return v;
}

void Extent::add(const Value& part) {
  const Extent e = jinja::extent(part);
  depth = std::max(depth, e.depth + 1);
  weight += e.weight;
  if (depth > kDeepest) too_deep();
  if (weight > kHeaviest) throw Trouble(fmt::format("a list or dict of more than {} values and bytes", kHeaviest));
}

Extent extent(const Value& v) {
  if (const List* l = v.list()) return l->extent;
  if (const Dict* d = v.dict()) return d->extent;
  if (v.is<LoopRef>()) return v.get<LoopRef>()->extent;
  return {0, v.text() ? 1 + static_cast<std::int64_t>(v.text()->size()) : 1};
}

Value make_list(std::vector<Value> items, List::Kind kind) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) list->extent.add(item);
  list->items = std::move(items);
  list->kind = kind;
  return ListRef(std::move(list));
}

Value make_dict(Members members) {
  auto dict = std::make_shared<Dict>();
  for (const auto& m : members) {
    dict->extent.add(m.second);
    dict->extent.weight += static_cast<std::int64_t>(m.first.size());
  }
  dict->members = std::move(members);
  return DictRef(std::move(dict));
}

Value from_json(const io::Json& json) {
  // Depth is looked at on the way down, for recursion must end there.
  const auto convert = [](const auto& self, const io::Json& j, int depth) -> Value {
    if (depth > kDeepest) too_deep();
    switch (j.type()) {
      case io::Json::value_t::boolean: return j.get<bool>();
      case io::Json::value_t::number_integer: return j.get<std::int64_t>();
      case io::Json::value_t::number_unsigned:
        if (const auto n = j.get<std::uint64_t>(); n <= INT64_MAX) return static_cast<std::int64_t>(n);
        return j.get<double>();
      case io::Json::value_t::number_float: return j.get<double>();
      case io::Json::value_t::string: return j.get<std::string>();
      case io::Json::value_t::array: {
        std::vector<Value> items;
        for (const auto& item : j) items.push_back(self(self, item, depth + 1));
        return make_list(std::move(items));
      }
      case io::Json::value_t::object: {
        Members members;
        for (const auto& [key, value] : j.items()) members.emplace_back(key, self(self, value, depth + 1));
        return make_dict(std::move(members));
      }
      default: return None{};
    }
  };
  return convert(convert, json, 1);
}

const Value* find(const Members& members, std::string_view key) noexcept {
  for (const auto& m : members)
    if (m.first == key) return &m.second;
  return nullptr;
}

bool truth(const Value& v) {
  if (v.is<Undefined>() || v.is<None>()) return false;
  if (v.is_whole()) return v.whole() != 0;
  if (v.is<double>()) return v.number() != 0;
  if (v.text()) return !v.text()->empty();
  if (v.list()) return v.list()->kind == List::Kind::generator || !v.list()->items.empty();
  return v.dict() ? !v.dict()->members.empty() : true;
}

std::string_view kind_name(const Value& v) {
  constexpr std::string_view kNames[] = {"an undefined value", "none",   "a boolean", "an integer", "a float", "a string", "a list", "a dict",
                                         "a namespace",        "`loop`", "a macro",   "a function"};
  if (v.list() && v.list()->kind != List::Kind::list) return v.list()->kind == List::Kind::tuple ? "a tuple" : "a generator";
  return kNames[v.held.index()];
}

std::string to_text(const Value& v) { return shown(v, false); }

bool equal(const Value& a, const Value& b) {
  if (a.is_whole() && b.is_whole()) return a.whole() == b.whole();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.held.index() != b.held.index()) return false;
  if (a.text()) return *a.text() == *b.text();
  if (a.list())
    return a.list()->kind == b.list()->kind &&
           std::equal(a.list()->items.begin(), a.list()->items.end(), b.list()->items.begin(), b.list()->items.end(), equal);
  if (a.dict()) {
    const auto &x = a.dict()->members, &y = b.dict()->members;
    return x.size() == y.size() && std::all_of(x.begin(), x.end(), [&](const auto& m) {
             const Value* other = find(y, m.first);
             return other && equal(m.second, *other);
           });
  }
  if (a.is<NamespaceRef>()) return a.get<NamespaceRef>() == b.get<NamespaceRef>();
  if (a.is<LoopRef>()) return a.get<LoopRef>() == b.get<LoopRef>();
  if (a.is<const Macro*>()) return a.get<const Macro*>() == b.get<const Macro*>();
  if (a.is<Callable>()) return a.get<Callable>().name == b.get<Callable>().name;
  return true;  // none, undefined
}

bool less(const Value& a, const Value& b) { return order(a, b) < 0; }

std::string to_json(const Value& v, const JsonStyle& style) {
  std::string out;
  json_value(out, v, style, 0);
  return out;
}

}  // namespace mezzo::text::jinja
