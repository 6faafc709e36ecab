// places.cpp - follows nodes as they are recorded, each to the module of its parameters or of the op before it.
#include "inspect/places.h"

namespace mezzo::inspect {

std::string module_of(const std::string& parameter) {
  const auto dot = parameter.rfind('.');
  return dot == std::string::npos ? std::string() : parameter.substr(0, dot);
}

const std::string& Places::enter(const autograd::Node& node, std::span<const Operand> inputs) {
  std::string place;
  for (const auto& in : inputs)
    if (in.original.defined() && in.original.impl()->extra && !in.original.name().empty()) {
      place = module_of(in.original.name());
      break;
    }
  for (std::size_t i = 0; place.empty() && i < node.edges.size(); ++i)
    if (const auto* before = autograd::node_of(node.edges[i])) place = of(*before);
  return by_sequence_[node.sequence] = std::move(place);
}

const std::string& Places::of(const autograd::Node& node) const {
  static const std::string nowhere;
  const auto found = by_sequence_.find(node.sequence);
  return found == by_sequence_.end() ? nowhere : found->second;
}

}  // namespace mezzo::inspect
