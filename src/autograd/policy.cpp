// policy.cpp - policies as values made from the op table.
#include <mezzo/policy.h>

#include <ostream>
#include <vector>

#include "autograd/op_table.h"
#include "core/fail.h"

namespace mezzo::amp {

std::string_view name(Cast c) {
  switch (c) {
    case Cast::low: return "low";
    case Cast::f32: return "f32";
    case Cast::f32_internal: return "f32_internal";
    case Cast::widest: return "widest";
    case Cast::as_is: return "as_is";
    case Cast::banned: return "banned";
  }
  return "?";
}

Policy::Policy(bool like_torch) : rounds_like_torch_(like_torch) {
  for (const auto& op : op_table::kOps) casts_[static_cast<std::size_t>(op.id)] = like_torch ? op.torch : op.mezzo;
}
Policy::Policy() : Policy(false) {}
Policy Policy::mezzo() { return Policy(false); }
Policy Policy::torch() { return Policy(true); }

namespace {
std::size_t find(std::string_view op) {
  for (const std::string_view comparison : {"eq", "ne", "lt", "le", "gt", "ge"})
    if (op == comparison) op = "compare";
  for (const auto& row : op_table::kOps)
    if (row.name == op) return static_cast<std::size_t>(row.id);
  std::vector<std::string_view> names;
  for (const auto& row : op_table::kOps) names.push_back(row.name);
  const std::string near = near_names(op, names);
  fail("Policy", fmt::format("op `{}` given, a name of the op table wanted", op), near.empty() ? "docs/ops.md lists them" : near);
}
}  // namespace

Policy& Policy::set(std::string_view op, Cast c) {
  const std::size_t id = find(op);
  const Choice choice = policy_choice(static_cast<OpId>(id));
  if (c != casts_[id] && choice == Choice::none)
    fail("Policy", fmt::format("{} given for `{}`, which computes nothing: it keeps its input's dtype under every policy", amp::name(c), op),
         "set the op that computes its input, or convert with to()");
  if (c != casts_[id] && choice == Choice::loss && c != Cast::f32 && c != Cast::banned)
    fail("Policy", fmt::format("{} given for `{}`, f32 or banned wanted: a loss is computed and kept in f32", amp::name(c), op),
         "round the result with to() where 16 bits of a loss are wanted");
  casts_[id] = c;
  if (op == "sum" || op == "mean") set(fmt::format("{}_dim", op), c);
  return *this;
}
Cast Policy::of(std::string_view op) const { return casts_[find(op)]; }

std::string to_string(const Policy& p) {
  const Policy from = p.rounds_like_torch() ? Policy::torch() : Policy::mezzo();
  std::string changes;
  for (std::size_t i = 0; i < kOpCount; ++i)
    if (p[i] != from[i]) changes += fmt::format("{} {} {}", changes.empty() ? ", but" : ",", op_table::kOps[i].name, name(p[i]));
  std::string out = fmt::format("policy {}, version {}{}\n", p.rounds_like_torch() ? "torch" : "mezzo", Policy::kVersion, changes);
  for (const auto c : {Cast::low, Cast::f32, Cast::f32_internal, Cast::widest, Cast::as_is, Cast::banned}) {
    std::string ops;
    for (const auto& row : op_table::kOps)
      if (p[static_cast<std::size_t>(row.id)] == c && policy_choice(row.id) != Choice::none) ops += fmt::format(" {}", row.name);
    if (!ops.empty()) out += fmt::format("{:<13}{}\n", name(c), ops);
  }
  return out;
}
std::ostream& operator<<(std::ostream& out, const Policy& p) { return out << to_string(p); }

}  // namespace mezzo::amp
