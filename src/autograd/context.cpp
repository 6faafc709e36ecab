// context.cpp - what autocast decides for an op, and the casts it takes.
#include "autograd/context.h"

#include "autograd/cast_cache.h"
#include "core/fail.h"
#include "core/parts.h"
#include "tensor/layout.h"

namespace mezzo {

ExecutionContext& context() noexcept {
  thread_local ExecutionContext c;
  return c;
}

namespace {
[[noreturn]] void fail_banned(OpId op) {
  if (info(op).mezzo != amp::Cast::banned)
    fail(name(op), "this op is banned under autocast by the region's policy",
         "Policy::set gives it a class; Autocast with .enabled = false runs it as it is");
  fail(name(op), "this op is unsafe under autocast: its gradient leaves the range of 16 bits, and a cast of the input cannot mend that",
       "use binary_cross_entropy_with_logits on the values before the sigmoid, or leave autocast and pass f32");
}
amp::Cast class_of(OpId op) { return context().policy[static_cast<std::size_t>(op)]; }
}  // namespace

Dtype compute_dtype(OpId op, Dtype given) {
  const auto& c = context();
  if (!c.autocast || !eligible(given)) return given;
  switch (class_of(op)) {
    case amp::Cast::low: return c.dtype;
    case amp::Cast::f32: return Dtype::f32;
    case amp::Cast::f32_internal:
    case amp::Cast::widest:
    case amp::Cast::as_is: return given;
    case amp::Cast::banned:
      if (is_16bit(given) || c.policy.rounds_like_torch()) fail_banned(op);
      return given;
  }
  return given;
}

Dtype compute_dtype(OpId op, std::span<const Tensor* const> inputs) {
  const auto& c = context();
  const amp::Cast cast = c.autocast ? class_of(op) : amp::Cast::widest;
  bool any = false;
  Dtype widest = Dtype::f32;
  for (const Tensor* t : inputs) {
    if (!t->defined()) continue;
    const Dtype d =
        cast == amp::Cast::widest || cast == amp::Cast::as_is || cast == amp::Cast::f32_internal ? t->dtype() : compute_dtype(op, t->dtype());
    widest = any ? promote(widest, d) : d;
    any = true;
  }
  return widest;
}

Operand operand(const Tensor& x, Dtype dtype) {
  if (!x.defined() || x.dtype() == dtype) return {x, x};
  const auto& c = context();
  const auto& impl = *x.impl();
  const bool parameter = impl.storage->parameter || (impl.requires_grad && !impl.edge);
  if (c.autocast && c.cache && dtype == c.dtype && parameter && impl.dtype == Dtype::f32) return {x, autograd::cached_cast(x, dtype)};
  const PartScope timed(Part::cast);
  const Tensor copy = make_tensor(impl.shape, dtype);
  copy_elements(copy, x);
  return {x, copy};
}

}  // namespace mezzo
