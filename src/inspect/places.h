// places.h - which module an op belongs to, told from the parameters it uses.
#pragma once

#include <span>
#include <string>
#include <unordered_map>

#include "autograd/node.h"

namespace mezzo::inspect {

/// Modules call free functions, so an op does not know its module; but parameters have their paths as names. An op with one belongs to that
/// parameter's module, any other to that of the op its first recorded input comes from.
class Places {
 public:
  /// Finds, and remembers for the ops that follow, the place of a node that has just been recorded.
  const std::string& enter(const autograd::Node&, std::span<const Operand> inputs);
  /// Of a node that was entered; empty otherwise.
  const std::string& of(const autograd::Node&) const;
  void clear() { by_sequence_.clear(); }

 private:
  std::unordered_map<std::uint64_t, std::string> by_sequence_;
};

/// "h.0.attn.c_attn" of "h.0.attn.c_attn.weight".
std::string module_of(const std::string& parameter);

}  // namespace mezzo::inspect
