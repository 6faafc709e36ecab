// storage.cpp - how 16-bit leaves come to be, and what an optimizer keeps beside them: masters, remainders, compensations, moments.
#include "autograd/context.h"
#include "core/fail.h"
#include "kernels/kernels.h"
#include "optim/gradients.h"
#include "optim/slot.h"
#include "tensor/layout.h"

#include <mezzo/ops.h>

namespace mezzo::optim {

bool keeps_f32(const Tensor& w, Storage storage) {
  const auto* extra = w.impl()->extra.get();
  if (extra && extra->kept) return true;
  return storage != Storage::pure && (w.dim() < 2 || (extra && extra->exempt));
}

bool covers_its_storage(const Tensor& w) {
  const auto& impl = *w.impl();
  return impl.contiguous && impl.offset == 0 && static_cast<std::size_t>(w.numel()) * size_of(impl.dtype) == impl.storage->bytes;
}

namespace {

Shape with_last(Shape shape, std::int64_t size) {
  std::vector<std::int64_t> dims(shape.begin(), shape.end());
  dims.push_back(size);
  return {dims};
}

/// The handle gets the elements of `low` in place of its own, and a version beyond the old one: a graph that saved the weight is caught.
void move_in(detail::TensorImpl& impl, const Tensor& low) {
  const Ref<detail::Storage> before = impl.storage;
  before->casts.reset();
  impl.storage = low.impl()->storage;
  impl.storage->parameter = before->parameter;
  impl.storage->version = before->version + 1;
  impl.offset = 0;
  impl.strides = low.impl()->strides;
  impl.contiguous = true;
  impl.is_view = false;
  impl.dtype = low.dtype();
}

}  // namespace

// ---- 16-bit leaves -------------------------------------------------------------------------------

void Optimizer::lower(Slot& slot) {
  auto& impl = *slot.w.impl();
  const bool was_low = is_16bit(impl.dtype);
  const Dtype dtype = was_low ? impl.dtype : low();
  const bool moves = !was_low || !impl.contiguous;
  if (storage() == Storage::master) {
    // The f32 storage becomes the master where no one else sees it; else the master is a copy.
    if (!was_low && impl.storage->unique() && covers_its_storage(slot.w)) {
      slot.master = alias_of(slot.w);
      impl.storage->relabel(Memory::masters);
    } else {
      const MemoryScope scope(Memory::masters);
      slot.master = copy_of(slot.w, Dtype::f32);
    }
  } else if (storage() == Storage::split || storage() == Storage::kahan) {
    const MemoryScope scope(Memory::masters);
    slot.rest = storage() == Storage::split ? zeros(with_last(impl.shape, 2), {.dtype = Dtype::u8}) : zeros(impl.shape, {.dtype = dtype});
  }
  if (moves) {
    const MemoryScope scope(Memory::weights);
    const Tensor to = make_tensor(impl.shape, dtype);
    if (slot.master.defined()) {
      round_master(slot, to);
    } else if (storage() == Storage::split && !was_low) {
      const MemoryScope workspace(Memory::workspace);
      const Tensor truth = slot.w.is_contiguous() ? slot.w : copy_of(slot.w, Dtype::f32);
      kernels::split(kernels::cpu_queue(), static_cast<const float*>(data(truth)), mutable_data(to), mutable_data(slot.rest), to.numel());
    } else {
      copy_elements(to, slot.w);
    }
    move_in(impl, to);
  }
  slot.dtype = impl.dtype;
  slot.version = slot.w.version();
}

// A step of length zero: it rounds the master as every step does.
void Optimizer::round_master(const Slot& slot, const Tensor& to) const {
  auto& q = kernels::cpu_queue();
  const MemoryScope scope(Memory::workspace);
  const Tensor nothing = zeros(to.shape(), {.dtype = to.dtype()});
  kernels::Update u;
  u.rule = kernels::Rule::sgd;
  u.store = kernels::Store::master;
  u.n = to.numel();
  u.w = mutable_data(to);
  u.master = static_cast<float*>(mutable_data(slot.master));
  u.low = to.dtype();
  u.copy_half_away = settings_.rounding == CopyRounding::half_away;
  u.g = data(nothing);
  u.g_dtype = nothing.dtype();
  kernels::update(q, u);
}

// Someone wrote to the weight. Where a 16-bit one is not what its master rounds to, the master takes its value. A compensation that is more than
// half the weight's spacing belonged to another number. A remainder is always less, and there is no telling whether it belonged to this one.
void Optimizer::follow_weight(Slot& slot) {
  const ContextScope context_scope;
  context().grad = context().autocast = false;
  const MemoryScope scope(Memory::workspace);
  if (slot.master.defined()) {
    const Tensor rounded = make_tensor(slot.w.shape(), slot.dtype);
    round_master(slot, rounded);
    copy_elements(slot.master, where(eq(slot.w, rounded), slot.master, slot.w.to(Dtype::f32)));
  } else if (slot.rest.defined() && storage() == Storage::kahan) {
    copy_elements(slot.rest, where(le(abs(slot.rest), abs(slot.w) * 0x1p-8), slot.rest, zeros(slot.rest.shape(), {.dtype = slot.rest.dtype()})));
  }
  slot.version = slot.w.version();
}

// ---- moments -------------------------------------------------------------------------------------

std::int64_t Optimizer::State::blocks() const { return dtype == Dtype::u8 ? (shape.numel() + kernels::kQuantBlock - 1) / kernels::kQuantBlock : 0; }
std::int64_t Optimizer::State::bytes() const { return shape.numel() * static_cast<std::int64_t>(size_of(dtype)) + blocks() * 4; }

std::vector<Optimizer::State> Optimizer::states_of(const Slot& slot) const {
  constexpr std::int64_t kLeastQuantized = 4096;  // elements, as in the paper: small parameters are few bytes, and often need them
  const auto& s = settings_;
  const Shape& shape = slot.w.shape();
  const Dtype wide = slot.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  std::vector<State> states;
  if (s.factored) {
    if (slot.w.dim() < 2) return {{"variance", shape, wide}};
    std::vector<std::int64_t> rows(shape.begin(), shape.end()), columns = rows;
    rows.back() = 1;
    columns[columns.size() - 2] = 1;
    return {{s.moments[0], rows, wide}, {s.moments[1], columns, wide}};
  }
  const bool low_by_storage = is_16bit(slot.dtype) && (s.storage == Storage::stochastic || s.storage == Storage::kahan);
  Dtype dtype = wide == Dtype::f64 ? wide : s.state_dtype.value_or(low_by_storage ? Dtype::bf16 : Dtype::f32);
  if (dtype == Dtype::u8 && shape.numel() < kLeastQuantized) dtype = Dtype::f32;
  for (const char* name : s.moments) states.push_back({name, shape, dtype});
  return states;
}

}  // namespace mezzo::optim
