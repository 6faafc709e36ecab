// policy.cpp - policies as values made from the op table.
#include <mezzo/policy.h>

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

const Policy& Policy::mezzo() {
  static const Policy policy = [] {
    Policy p;
    for (const auto& op : op_table::kOps) p.casts_[static_cast<std::size_t>(op.id)] = op.mezzo;
    return p;
  }();
  return policy;
}

const Policy& Policy::torch() {
  static const Policy policy = [] {
    Policy p;
    for (const auto& op : op_table::kOps) p.casts_[static_cast<std::size_t>(op.id)] = op.torch;
    p.rounds_like_torch_ = true;
    return p;
  }();
  return policy;
}

namespace {
std::size_t find(std::string_view op) {
  for (const auto& row : op_table::kOps)
    if (row.name == op) return static_cast<std::size_t>(row.id);
  std::vector<std::string_view> names;
  for (const auto& row : op_table::kOps) names.push_back(row.name);
  fail("Policy", fmt::format("op `{}` given, a name of the op table wanted", op), near_names(op, names));
}
}  // namespace

Policy& Policy::set(std::string_view op, Cast c) {
  casts_[find(op)] = c;
  return *this;
}
Cast Policy::of(std::string_view op) const { return casts_[find(op)]; }

}  // namespace mezzo::amp
