// jinja_arithmetic.cpp - operators on values.
#include "text/jinja_arithmetic.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "text/jinja_text.h"

namespace mezzo::text::jinja {
namespace {

[[noreturn]] void too_large() { throw Trouble("an integer of more than 64 bits"); }
[[noreturn]] void division_by_zero() { throw Trouble("division by 0"); }

std::string_view symbol(Operator op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<std::size_t>(op)];
}

Value power(std::int64_t a, std::int64_t b) {
  if (b < 0) {
    if (a == 0) division_by_zero();
    return std::pow(static_cast<double>(a), static_cast<double>(b));
  }
  std::int64_t out = 1;
  if (a == 0 || a == 1) return b == 0 ? out : a;
  if (a == -1) return b % 2 == 0 ? out : a;
  for (; b > 0; --b)  // 63 times at most
    if (__builtin_mul_overflow(out, a, &out)) too_large();
  return out;
}

Value whole(Operator op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  switch (op) {
    case Operator::add:
      if (__builtin_add_overflow(a, b, &out)) too_large();
      return out;
    case Operator::subtract:
      if (__builtin_sub_overflow(a, b, &out)) too_large();
      return out;
    case Operator::multiply:
      if (__builtin_mul_overflow(a, b, &out)) too_large();
      return out;
    case Operator::power: return power(a, b);
    default: break;
  }
  if (b == 0) division_by_zero();
  if (op == Operator::divide) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1) return op == Operator::modulo ? Value(std::int64_t{0}) : negated(a);
  const bool round_down = a % b != 0 && (a % b < 0) != (b < 0);  // towards minus infinity, where C++ rounds to zero
  return op == Operator::modulo ? a % b + (round_down ? b : 0) : a / b - (round_down ? 1 : 0);
}

Value real(Operator op, double a, double b) {
  switch (op) {
    case Operator::add: return a + b;
    case Operator::subtract: return a - b;
    case Operator::multiply: return a * b;
    case Operator::power: return std::pow(a, b);
    default: break;
  }
  if (b == 0) division_by_zero();
  if (op == Operator::divide) return a / b;
  double remainder = std::fmod(a, b);
  if (remainder == 0) remainder = std::copysign(0.0, b);
  else if ((remainder < 0) != (b < 0)) remainder += b;
  return op == Operator::modulo ? remainder : std::floor((a - remainder) / b + 0.5);
}

std::vector<Value> joined(Run& run, const List& a, const List& b) {
  run.charge(static_cast<std::int64_t>((a.items.size() + b.items.size()) * sizeof(Value)));
  std::vector<Value> out = a.items;
  out.insert(out.end(), b.items.begin(), b.items.end());
  return out;
}

/// Text or a list `times` times.
Value repeated(Run& run, const Value& x, std::int64_t times) {
  times = std::max<std::int64_t>(times, 0);
  const auto size = static_cast<std::int64_t>(x.text() ? x.text()->size() : x.list()->items.size() * sizeof(Value)) + 1;
  if (times > run.left() / size) run.charge(run.left() + 1);
  run.charge(times * size);
  if (x.list()) {
    std::vector<Value> out;
    while (times-- > 0) out.insert(out.end(), x.list()->items.begin(), x.list()->items.end());
    return make_list(std::move(out), x.list()->kind);
  }
  std::string out;
  out.reserve(x.text()->size() * static_cast<std::size_t>(times));
  while (times-- > 0) out += *x.text();
  return out;
}

bool is_sequence(const Value& v) { return v.text() || (v.list() && v.list()->kind != List::Kind::generator); }

}  // namespace

Value arithmetic(Run& run, Operator op, const Value& a, const Value& b) {
  if (a.is<Undefined>()) fail_undefined(a);
  if (b.is<Undefined>()) fail_undefined(b);
  if (a.is_whole() && b.is_whole()) return whole(op, a.whole(), b.whole());
  if (a.is_number() && b.is_number()) return real(op, a.number(), b.number());
  if (op == Operator::add && a.text() && b.text()) {
    run.charge(static_cast<std::int64_t>(a.text()->size() + b.text()->size()));
    return *a.text() + *b.text();
  }
  if (op == Operator::add && is_sequence(a) && a.list() && b.list() && a.list()->kind == b.list()->kind)
    return make_list(joined(run, *a.list(), *b.list()), a.list()->kind);
  if (op == Operator::multiply && is_sequence(a) && b.is_whole()) return repeated(run, a, b.whole());
  if (op == Operator::multiply && is_sequence(b) && a.is_whole()) return repeated(run, b, a.whole());
  if (op == Operator::modulo && a.text()) throw Trouble("`%` after a string (printf's formats) is not supported");
  throw Trouble(fmt::format("{} {} {}: there is no such sum", kind_name(a), symbol(op), kind_name(b)));
}

Value negated(const Value& v) {
  if (v.is<double>()) return -v.number();
  const std::int64_t n = as_whole(v);
  if (n == INT64_MIN) too_large();
  return -n;
}

bool holds(Run& run, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::equal: return run.equal(a, b);
    case Operator::unequal: return !run.equal(a, b);
    case Operator::in: return run.contains(b, a);
    case Operator::not_in: return !run.contains(b, a);
    default: break;
  }
  if (a.is<Undefined>()) fail_undefined(a);
  if (b.is<Undefined>()) fail_undefined(b);
  if (a.is_number() && b.is_number() && (std::isnan(a.number()) || std::isnan(b.number()))) return false;
  switch (op) {
    case Operator::less: return run.less(a, b);
    case Operator::less_equal: return !run.less(b, a);
    case Operator::greater: return run.less(b, a);
    default: return !run.less(a, b);
  }
}

Value sliced(Run& run, const Value& x, std::optional<std::int64_t> begin, std::optional<std::int64_t> end, std::optional<std::int64_t> step) {
  if (x.is<Undefined>()) fail_undefined(x);
  if (!is_sequence(x)) throw Trouble(fmt::format("{} cannot be sliced", kind_name(x)));
  const std::int64_t by = step.value_or(1);
  if (by == 0) throw Trouble("a slice with a step of 0");
  std::vector<std::string_view> letters;
  if (x.text()) {
    run.charge(static_cast<std::int64_t>(x.text()->size() * sizeof(std::string_view)));
    letters = code_points(*x.text());
  }
  const auto size = static_cast<std::int64_t>(x.text() ? letters.size() : x.list()->items.size());
  const std::int64_t lowest = by > 0 ? 0 : -1, highest = by > 0 ? size : size - 1;
  const auto bound = [&](std::optional<std::int64_t> given, std::int64_t otherwise) {
    return given ? std::clamp(*given < 0 ? *given + size : *given, lowest, highest) : otherwise;
  };
  const std::int64_t first = bound(begin, by > 0 ? 0 : size - 1), last = bound(end, by > 0 ? size : -1);
  std::string text;
  std::vector<Value> items;
  for (std::int64_t i = first; by > 0 ? i < last : i > last; i += by) {
    if (x.text()) text += letters[static_cast<std::size_t>(i)];
    else items.push_back(x.list()->items[static_cast<std::size_t>(i)]);
    if (by > size || by < -size) break;  // i + by need not fit
  }
  if (x.text()) return text;
  run.charge(static_cast<std::int64_t>(items.size() * sizeof(Value)));
  return make_list(std::move(items), x.list()->kind);
}

}  // namespace mezzo::text::jinja
