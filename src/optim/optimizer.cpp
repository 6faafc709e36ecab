// optimizer.cpp - parameters, where their truth is kept, and the step: one kernel pass over each.
#include <atomic>
#include <cctype>
#include <cmath>
#include <unordered_map>

#include "autograd/cast_cache.h"
#include "autograd/context.h"
#include "core/fail.h"
#include "core/parts.h"
#include "kernels/kernels.h"
#include "optim/gradients.h"
#include "optim/slot.h"
#include "tensor/layout.h"

#include <mezzo/ops.h>

namespace mezzo::optim {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed) + 1;
}

const char* storage_name(Storage s) {
  switch (s) {
    case Storage::f32: return "f32";
    case Storage::master: return "master";
    case Storage::split: return "split";
    case Storage::stochastic: return "stochastic";
    case Storage::kahan: return "kahan";
    case Storage::pure: return "pure";
  }
  return "?";
}

/// Norm weights, biases and adapters (as modules mark them), what Module::keep() chose, and raw tensors of fewer than two dims keep their f32
/// weights.
bool is_exempt(const Tensor& w) { return w.dim() < 2 || (w.impl()->extra && (w.impl()->extra->exempt || w.impl()->extra->kept)); }

bool covers_its_storage(const Tensor& w) {
  const auto& impl = *w.impl();
  return impl.contiguous && impl.offset == 0 && static_cast<std::size_t>(w.numel()) * size_of(impl.dtype) == impl.storage->bytes;
}

bool elements_share_memory(const Tensor& w) {
  for (std::size_t d = 0; d < w.shape().size(); ++d)
    if (w.shape()[d] > 1 && w.impl()->strides[d] == 0) return true;
  return false;
}

void check_parameter(const char* op, const Tensor& w, std::size_t index, Storage storage) {
  if (!w.defined()) fail(op, fmt::format("param[{}] is an undefined tensor, a leaf of a floating dtype wanted", index));
  const std::string name = reported_name(w, index);
  if (!is_floating(w.dtype())) fail(op, fmt::format("parameter `{}` is {}, a floating dtype wanted", name, mezzo::name(w.dtype())));
  if (!w.is_leaf())
    fail(op, fmt::format("parameter `{}` is the result of an op, a leaf wanted", name), "pass the tensor it was computed from, or its detach()");
  if (elements_share_memory(w))
    fail(op, fmt::format("parameter `{}` is an expanded view: its elements share memory", name), "take contiguous() first");
  if (w.dtype() == Dtype::f16 && storage == Storage::f32)
    fail(op, fmt::format("parameter `{}` is f16, an f32 parameter wanted for Storage::f32: most updates would round to nothing", name),
         "keep the parameter in f32 and run the model under amp::Autocast(f16), or set .storage = Storage::master: it keeps an f32 master of each "
         "f16 weight");
  if (storage == Storage::master && w.dtype() != Dtype::f64 && w.impl()->is_view && !w.impl()->storage->unique())
    fail(op, fmt::format("parameter `{}` is a view of another tensor: as a 16-bit leaf it would be cut loose from it", name),
         "pass the whole tensor, or a clone()");
}

}  // namespace

std::string reported_name(const Tensor& w, std::size_t index) { return w.name().empty() ? fmt::format("param[{}]", index) : w.name(); }

// ---- construction --------------------------------------------------------------------------------

Optimizer::Optimizer(std::vector<ParamGroup> groups, const Settings& s)
    : groups_(std::move(groups)), name_(s.name), moments_(s.moments), storage_(s.storage), low_(s.low), rounding_(s.rounding), id_(next_id()) {
  if (storage_ != Storage::f32 && storage_ != Storage::master)
    fail(name_, fmt::format("Storage::{} given, Storage::f32 or Storage::master wanted: the others are not in this version", storage_name(storage_)));
  if (storage_ != Storage::f32 && !is_16bit(low_)) fail(name_, fmt::format("low = {} given, f16 or bf16 wanted", mezzo::name(low_)));
  if (storage_ != Storage::master && rounding_ != CopyRounding::nearest_even)
    fail(name_, "CopyRounding::half_away given without masters", "it says how .storage = Storage::master rounds a master to its weight");

  std::unordered_map<const detail::TensorImpl*, std::size_t> seen;
  for (std::size_t k = 0; k < groups_.size(); ++k)
    for (const auto& w : groups_[k].params) {
      const std::size_t index = slots_.size();
      check_parameter(name_, w, index, storage_);
      const auto [before, fresh] = seen.emplace(w.impl(), index);
      if (!fresh)
        fail(name_, fmt::format("parameter `{}` is given twice, at {} and {}", reported_name(w, index), before->second, index),
             "one tensor, one place: a tied weight is one parameter");
      slots_.push_back({.w = w, .group = k, .dtype = w.dtype()});
    }
  if (slots_.empty()) fail(name_, "no parameters given, at least one wanted", "did the model register its parameters?");
  check();

  for (auto& slot : slots_) {
    auto& storage = *slot.w.impl()->storage;
    if (storage.category == Memory::activations) storage.relabel(Memory::weights);
    if (storage_ == Storage::master && (is_16bit(slot.dtype) || (slot.dtype == Dtype::f32 && !is_exempt(slot.w)))) lower(slot);
  }
}

Optimizer::~Optimizer() = default;

// The f32 storage becomes the master where no one else sees it; else the master is a copy. The handle gets 16-bit elements in place of it, and a
// version beyond the old one: a graph that saved the weight is caught.
void Optimizer::lower(Slot& slot) {
  auto& impl = *slot.w.impl();
  const bool sole_owner = impl.storage->unique();
  const Ref<detail::Storage> before = impl.storage;
  if (impl.dtype == Dtype::f32 && sole_owner && covers_its_storage(slot.w)) {
    slot.master = alias_of(slot.w);
    before->casts.reset();
    before->relabel(Memory::masters);
  } else {
    const MemoryScope scope(Memory::masters);
    slot.master = copy_of(slot.w, Dtype::f32);
  }
  if (!is_16bit(impl.dtype) || !impl.contiguous) {
    const MemoryScope scope(Memory::weights);
    const Tensor low = make_tensor(impl.shape, is_16bit(impl.dtype) ? impl.dtype : low_);
    round_master(slot, low);
    impl.storage = low.impl()->storage;
    impl.storage->parameter = before->parameter;
    impl.storage->version = before->version + 1;
    impl.offset = 0;
    impl.strides = low.impl()->strides;
    impl.contiguous = true;
    impl.is_view = false;
    impl.dtype = low.dtype();
  }
  slot.dtype = impl.dtype;
  slot.version = slot.w.version();
}

// ---- the step ------------------------------------------------------------------------------------

void Optimizer::zero_grad() {
  for (auto& slot : slots_)
    if (slot.w.grad().defined()) slot.w.set_grad({});
}

void Optimizer::check() const {
  std::size_t index = 0;
  for (std::size_t k = 0; k < groups_.size(); ++k) {
    const auto& g = groups_[k];
    if (!(g.lr >= 0 && std::isfinite(g.lr))) fail(name_, fmt::format("lr = {} given for group {}, a finite number of 0 or more wanted", g.lr, k));
    if (!(g.weight_decay >= 0 && std::isfinite(g.weight_decay)))
      fail(name_, fmt::format("weight_decay = {} given for group {}, a finite number of 0 or more wanted", g.weight_decay, k));
    for (const auto& w : g.params) {
      if (index >= slots_.size() || slots_[index].group != k || slots_[index].w.impl() != w.impl())
        fail(name_, fmt::format("the parameters of group {} are not those the optimizer was built with", k),
             "change a group's lr and weight_decay; for other parameters build another optimizer");
      const auto& slot = slots_[index];
      if (w.dtype() != slot.dtype)
        fail(name_,
             fmt::format("parameter `{}` is {} now, and was {} when the optimizer was built", reported_name(w, index), mezzo::name(w.dtype()),
                         mezzo::name(slot.dtype)),
             "convert the model before the optimizer is built");
      ++index;
    }
  }
  if (index != slots_.size())
    fail(name_, fmt::format("{} parameters left in the groups, the {} the optimizer was built with wanted", index, slots_.size()));
}

void Optimizer::step() { step(StepScaling{}); }

void Optimizer::step(const StepScaling& scaling) {
  const PartScope timed(Part::optimizer);
  check();
  if (!std::isfinite(scaling.g_scale)) fail(name_, fmt::format("g_scale = {} given, a finite number wanted", scaling.g_scale));
  bool any = false;
  for (auto& slot : slots_) {  // whatever can fail comes before the first weight changes
    if (!slot.w.grad().defined()) continue;
    any = true;
    if (slot.master.defined() && slot.version != slot.w.version()) follow_weight(slot);
    const MemoryScope scope(Memory::optimizer);
    for (std::size_t k = 0; k < moments_.size(); ++k)
      if (!slot.moments[k].defined()) slot.moments[k] = zeros(slot.w.shape(), {.dtype = slot.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32});
  }
  for (auto& slot : slots_)
    if (slot.w.grad().defined()) update(slot, scaling);
  steps_ += any;
}

void Optimizer::update(Slot& slot, const StepScaling& scaling) {
  auto& q = kernels::cpu_queue();
  const MemoryScope scope(Memory::workspace);
  const Tensor& w = slot.w;
  const ReadableGradient g = readable_gradient(w, scaling);
  kernels::Update u;
  rule(groups_[slot.group], slot.step + 1, u);
  u.n = w.numel();
  u.first = slot.step == 0;
  u.g = data(g.g);
  u.g_dtype = g.g.dtype();
  u.g_scale = scaling.g_scale;
  u.round_g = is_16bit(g.round);
  if (is_16bit(g.round)) u.low = g.round;
  if (slot.moments[0].defined()) u.m = mutable_data(slot.moments[0]);
  if (slot.moments[1].defined()) u.v = mutable_data(slot.moments[1]);

  Tensor wide, copy;  // what Store::f32 updates, and what it writes rounded in the same pass
  if (slot.master.defined()) {
    u.store = kernels::Store::master;
    u.w = mutable_data(w);
    u.master = static_cast<float*>(mutable_data(slot.master));
    u.low = w.dtype();
    u.copy_half_away = rounding_ == CopyRounding::half_away;
  } else {
    Dtype cached{};
    if (is_16bit(w.dtype())) {  // f32 for the length of the pass
      wide = copy_of(w, Dtype::f32);
      copy = w.is_contiguous() ? w : make_tensor(w.shape(), w.dtype());
    } else {
      wide = w.is_contiguous() ? w : copy_of(w, w.dtype());
      if (w.dtype() == Dtype::f32 && covers_its_storage(w) && autograd::cached_dtype(w, cached)) copy = autograd::begin_copy_update(w, cached);
    }
    u.w = mutable_data(wide);
    if (copy.defined()) {
      u.copy = mutable_data(copy);
      u.low = copy.dtype();
    }
  }
  kernels::update(q, u);

  if (!w.is_contiguous()) copy_elements(w, is_16bit(w.dtype()) ? copy : wide);
  bump_version(w);
  if (copy.defined() && !is_16bit(w.dtype())) autograd::mark_fresh(w, copy.dtype());
  slot.version = w.version();
  ++slot.step;
}

// ---- masters -------------------------------------------------------------------------------------

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
  u.copy_half_away = rounding_ == CopyRounding::half_away;
  u.g = data(nothing);
  u.g_dtype = nothing.dtype();
  kernels::update(q, u);
}

// Someone wrote to the 16-bit weight: where it is not what the master rounds to, the master takes its value.
void Optimizer::follow_weight(Slot& slot) {
  const ContextScope context_scope;
  context().grad = context().autocast = false;
  const MemoryScope scope(Memory::workspace);
  const Tensor rounded = make_tensor(slot.w.shape(), slot.dtype);
  round_master(slot, rounded);
  copy_elements(slot.master, where(eq(slot.w, rounded), slot.master, slot.w.to(Dtype::f32)));
  slot.version = slot.w.version();
}

// ---- accounts ------------------------------------------------------------------------------------

OptimizerBytes Optimizer::bytes() const {
  OptimizerBytes b;
  for (const auto& slot : slots_) {
    const auto& impl = *slot.w.impl();
    const auto n = slot.w.numel(), width = static_cast<std::int64_t>(size_of(impl.dtype));
    b.weights += n * width;
    if (slot.master.defined()) b.masters += n * 4;
    if (!impl.requires_grad) continue;
    b.gradients += n * (is_16bit(impl.dtype) && impl.extra && impl.extra->grad_in_f32 ? 4 : width);
    b.states += n * static_cast<std::int64_t>(moments_.size()) * (impl.dtype == Dtype::f64 ? 8 : 4);
  }
  return b;
}

NamedParameters Optimizer::named_parameters() const {
  NamedParameters out;
  for (std::size_t i = 0; i < slots_.size(); ++i) out.emplace_back(reported_name(slots_[i].w, i), slots_[i].w);
  return out;
}

std::string Optimizer::kind() const {
  std::string rule = name_;
  for (auto& c : rule) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (storage_ == Storage::f32) return rule + " f32";
  return fmt::format("{} {} {} {}", rule, storage_name(storage_), mezzo::name(low_),
                     rounding_ == CopyRounding::half_away ? "half_away" : "nearest_even");
}

}  // namespace mezzo::optim
