// jinja_arithmetic.h - operators on values, as Python has them.
#pragma once

#include <cstdint>
#include <optional>

#include "text/jinja_builtins.h"
#include "text/jinja_tree.h"

namespace mezzo::text::jinja {

/// a + b and so on. Trouble for operands that Python would not take, and for integers beyond 64 bits.
Value arithmetic(Run&, Operator, const Value& a, const Value& b);
Value negated(const Value&);
/// a == b, a < b, a in b ...
bool holds(Run&, Operator, const Value& a, const Value& b);
/// x[begin:end:step].
Value sliced(Run&, const Value& x, std::optional<std::int64_t> begin, std::optional<std::int64_t> end, std::optional<std::int64_t> step);

}  // namespace mezzo::text::jinja
