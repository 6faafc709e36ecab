// context.h - the thread's execution context: grad mode, autocast, policy. Changed only by scopes.
#pragma once

#include <initializer_list>
#include <span>

#include <mezzo/policy.h>
#include "autograd/op_table.h"
#include "tensor/impl.h"

namespace mezzo {

struct ExecutionContext {
  bool grad = true;
  bool autocast = false;
  bool cache = true;          // of casts
  Dtype dtype = Dtype::bf16;  // of the autocast region
  amp::Policy policy = amp::Policy::mezzo();
};
ExecutionContext& context() noexcept;

/// Puts the present context back at the end of a scope.
class ContextScope {
 public:
  [[nodiscard]] ContextScope() : before_(context()) {}
  ~ContextScope() { context() = before_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  ExecutionContext before_;
};

/// Grad mode for a scope.
class GradMode {
 public:
  [[nodiscard]] explicit GradMode(bool on) : before_(context().grad) { context().grad = on; }
  ~GradMode() { context().grad = before_; }
  GradMode(const GradMode&) = delete;
  GradMode& operator=(const GradMode&) = delete;

 private:
  bool before_;
};

/// Autocast switched off (or back on) for a scope; the region's dtype and policy stay.
class AutocastMode {
 public:
  [[nodiscard]] explicit AutocastMode(bool on) : before_(context().autocast) { context().autocast = on; }
  ~AutocastMode() { context().autocast = before_; }
  AutocastMode(const AutocastMode&) = delete;
  AutocastMode& operator=(const AutocastMode&) = delete;

 private:
  bool before_;
};

/// An input as the caller gave it, whose gradient is wanted in its dtype, and as the op computes with it.
struct Operand {
  Tensor original, value;
  Operand() = default;
  Operand(const Tensor& t) : original(t), value(t) {}  // NOLINT: as given
  Operand(const Tensor& t, Tensor v) : original(t), value(std::move(v)) {}
};

/// Whether autocast may touch a dtype.
constexpr bool eligible(Dtype t) { return is_floating(t) && t != Dtype::f64; }

/// The dtype that `op` computes with for an input of `given`, in the present context: the input's own outside autocast. Classes low, f32,
/// f32_internal, as_is. Throws for a banned op.
Dtype compute_dtype(OpId op, Dtype given);
/// The dtype of several inputs: element-wise ops promote to the widest, others cast as their class says. Undefined tensors do not vote.
Dtype compute_dtype(OpId op, std::span<const Tensor* const> inputs);
inline Dtype compute_dtype(OpId op, std::initializer_list<const Tensor*> inputs) {
  return compute_dtype(op, std::span(inputs.begin(), inputs.size()));
}

/// x in `dtype`: x itself, a view of its storage's cached copy (parameters, inside autocast), or a new copy. Nothing is recorded: the graph's
/// edge goes to the original, and the engine converts the gradient.
Operand operand(const Tensor& x, Dtype dtype);
inline Operand operand(OpId op, const Tensor& x) { return operand(x, compute_dtype(op, x.dtype())); }

}  // namespace mezzo
