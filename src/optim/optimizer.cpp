// optimizer.cpp - parameters and the step: one kernel pass over each.
#include <array>
#include <atomic>
#include <cctype>
#include <cmath>
#include <unordered_map>

#include <mezzo/random.h>

#include "autograd/cast_cache.h"
#include "core/fail.h"
#include "core/parts.h"
#include "kernels/kernels.h"
#include "optim/gradients.h"
#include "optim/slot.h"
#include "tensor/layout.h"

namespace mezzo::optim {
namespace {

kernels::Store store_of(Storage s) {
  switch (s) {
    case Storage::master: return kernels::Store::master;
    case Storage::split: return kernels::Store::split;
    case Storage::stochastic: return kernels::Store::stochastic;
    case Storage::kahan: return kernels::Store::kahan;
    case Storage::f32:  // a bf16 parameter given as it is
    case Storage::pure: return kernels::Store::pure;
  }
  return kernels::Store::pure;
}

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> counter{0};
  return counter.fetch_add(1, std::memory_order_relaxed) + 1;
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
  const bool bf16_alone = storage == Storage::split || storage == Storage::stochastic || storage == Storage::kahan;
  if (w.dtype() == Dtype::f16 && bf16_alone)
    fail(op, fmt::format("parameter `{}` is f16, f32 or bf16 wanted for Storage::{}", name, optim::name(storage)),
         "f16 weights want .storage = Storage::master");
  if (storage != Storage::f32 && w.dtype() != Dtype::f64 && w.impl()->is_view && !w.impl()->storage->unique())
    fail(op, fmt::format("parameter `{}` is a view of another tensor: as a 16-bit leaf it would be cut loose from it", name),
         "pass the whole tensor, or a clone()");
}

// Why a combination is refused comes with it.
void check_settings(const char* op, Storage storage, Dtype low, CopyRounding rounding) {
  if (storage == Storage::f32) {
    if (rounding != CopyRounding::nearest_even)
      fail(op, "CopyRounding::half_away given without masters", "it says how .storage = Storage::master rounds a master to its weight");
    return;
  }
  if (!is_16bit(low)) fail(op, fmt::format("low = {} given, f16 or bf16 wanted", name(low)));
  if (storage != Storage::master && rounding != CopyRounding::nearest_even)
    fail(op, fmt::format("CopyRounding::half_away given with Storage::{}", name(storage)),
         "it says how .storage = Storage::master rounds a master to its weight");
  if (low == Dtype::bf16) return;
  const auto refuse = [&](const char* why) {
    fail(op, fmt::format("Storage::{} with low = f16 given, bf16 wanted: {}", name(storage), why), "f16 weights want .storage = Storage::master");
  };
  if (storage == Storage::split) refuse("f16 is not the upper half of an f32, so 16 more bits do not complete it");
  if (storage == Storage::kahan) refuse("of what rounding a weight of 0.02 to f16 leaves over, f16 holds seven bits at most");
  if (storage == Storage::stochastic) refuse("below 2^-14 the spacing of f16 no longer shrinks with the weight, and the noise would outgrow it");
}

void check_states(const char* op, Storage storage, std::optional<Dtype> dtype, StateRounding rounding, double slowest_decay, bool adam, bool any) {
  constexpr double kSlowest = 0.99;  // a bf16 just above a power of two moves by nearest rounding only if a step takes 2^-8 = 0.0039 of it
  if (dtype) {
    if (*dtype != Dtype::f32 && *dtype != Dtype::bf16 && *dtype != Dtype::u8)
      fail(op, fmt::format("state_dtype = {} given, f32, bf16 or u8 wanted", name(*dtype)),
           *dtype == Dtype::f16 ? "squares of gradients leave f16's range; bf16 takes as many bytes" : "");
    if (*dtype == Dtype::u8 && !adam)
      fail(op, "state_dtype = u8 given, f32 or bf16 wanted: the 8-bit map is made for Adam's two moments", "Adam and AdamW take it");
    if (*dtype != Dtype::f32 && !any)
      fail(op, fmt::format("state_dtype = {} given to a rule that keeps no moments", name(*dtype)), "Sgd keeps one when .momentum > 0");
  }
  if (rounding == StateRounding::stochastic) return;
  if (dtype == Dtype::u8)
    fail(op,
         "StateRounding::nearest_even given with 8-bit states: a second moment decays by less than half a step of the map, so it would never decay",
         "leave state_rounding at StateRounding::stochastic");
  const bool low = dtype ? *dtype == Dtype::bf16 : storage == Storage::stochastic || storage == Storage::kahan;
  if (low && slowest_decay > kSlowest)
    fail(op,
         slowest_decay >= 1
             ? std::string("StateRounding::nearest_even given: in bf16 a sum stops growing as soon as what is added is below 2^-9 of it")
             : fmt::format(
                   "StateRounding::nearest_even given with a decay of {}, at most {} wanted: in bf16 a moment of 1 becomes {} and rounds back to 1, "
                   "so it never decays",
                   slowest_decay, kSlowest, slowest_decay),
         "leave state_rounding at StateRounding::stochastic, or keep states in f32");
}

}  // namespace

std::string reported_name(const Tensor& w, std::size_t index) { return w.name().empty() ? fmt::format("param[{}]", index) : w.name(); }

std::string_view name(Storage s) {
  constexpr std::array<std::string_view, 6> kNames{"f32", "master", "split", "stochastic", "kahan", "pure"};
  return kNames[static_cast<std::size_t>(s)];
}

// ---- construction --------------------------------------------------------------------------------

Optimizer::Optimizer(std::vector<ParamGroup> groups, const Settings& s)
    : groups_(std::move(groups)), settings_(s), id_(next_id()), seed_(default_generator().seed()) {
  check_settings(s.name, s.storage, s.low, s.rounding);
  check_states(s.name, s.storage, s.state_dtype, s.state_rounding, s.slowest_decay, s.moments.size() == 2 && !s.factored, !s.moments.empty());
  std::unordered_map<const detail::TensorImpl*, std::size_t> seen;
  for (std::size_t k = 0; k < groups_.size(); ++k)
    for (const auto& w : groups_[k].params) {
      const std::size_t index = slots_.size();
      check_parameter(s.name, w, index, s.storage);
      const auto [before, fresh] = seen.emplace(w.impl(), index);
      if (!fresh)
        fail(s.name, fmt::format("parameter `{}` is given twice, at {} and {}", reported_name(w, index), before->second, index),
             "one tensor, one place: a tied weight is one parameter");
      slots_.push_back({.w = w, .group = k, .dtype = w.dtype()});
    }
  if (slots_.empty()) fail(s.name, "no parameters given, at least one wanted", "did the model register its parameters?");
  check();

  for (auto& slot : slots_) {
    auto& storage = *slot.w.impl()->storage;
    if (storage.category == Memory::activations) storage.relabel(Memory::weights);
    if (s.storage != Storage::f32 && (is_16bit(slot.dtype) || (slot.dtype == Dtype::f32 && !keeps_f32(slot.w, s.storage)))) lower(slot);
  }
}

Optimizer::~Optimizer() = default;

// ---- the step ------------------------------------------------------------------------------------

void Optimizer::zero_grad() {
  for (auto& slot : slots_)
    if (slot.w.grad().defined()) slot.w.set_grad({});
}

void Optimizer::check() const {
  std::size_t index = 0;
  for (std::size_t k = 0; k < groups_.size(); ++k) {
    const auto& g = groups_[k];
    if (!(g.lr >= 0 && std::isfinite(g.lr)))
      fail(settings_.name, fmt::format("lr = {} given for group {}, a finite number of 0 or more wanted", g.lr, k));
    if (!(g.weight_decay >= 0 && std::isfinite(g.weight_decay)))
      fail(settings_.name, fmt::format("weight_decay = {} given for group {}, a finite number of 0 or more wanted", g.weight_decay, k));
    for (const auto& w : g.params) {
      if (index >= slots_.size() || slots_[index].group != k || slots_[index].w.impl() != w.impl())
        fail(settings_.name, fmt::format("the parameters of group {} are not those the optimizer was built with", k),
             "change a group's lr and weight_decay; for other parameters build another optimizer");
      const auto& slot = slots_[index];
      if (w.dtype() != slot.dtype)
        fail(settings_.name,
             fmt::format("parameter `{}` is {} now, and was {} when the optimizer was built", reported_name(w, index), mezzo::name(w.dtype()),
                         mezzo::name(slot.dtype)),
             "convert the model before the optimizer is built");
      ++index;
    }
  }
  if (index != slots_.size())
    fail(settings_.name, fmt::format("{} parameters left in the groups, the {} the optimizer was built with wanted", index, slots_.size()));
}

void Optimizer::step() { step(StepScaling{}); }

void Optimizer::step(const StepScaling& scaling) {
  begin_step(scaling);
  for (auto& slot : slots_)  // whatever can fail comes before the first weight changes
    if (slot.w.grad().defined()) prepare(slot);
  for (std::size_t i = 0; i < slots_.size(); ++i) step_on(i);
  end_step();
}

void Optimizer::begin_step(const StepScaling& scaling) {
  check();
  if (!std::isfinite(scaling.g_scale)) fail(settings_.name, fmt::format("g_scale = {} given, a finite number wanted", scaling.g_scale));
  scaling_ = scaling;
  updated_ = false;
}

void Optimizer::step_on(std::size_t index) {
  MEZZO_CHECK(index < slots_.size());
  Slot& slot = slots_[index];
  if (!slot.w.grad().defined()) return;
  const PartScope timed(Part::optimizer);
  prepare(slot);
  update(slot, index, scaling_);
  updated_ = true;
}

void Optimizer::end_step() { steps_ += updated_; }

/// Its master belongs to its weight, and its moments are there.
void Optimizer::prepare(Slot& slot) {
  const PartScope timed(Part::optimizer);
  if (slot.version != slot.w.version()) follow_weight(slot);
  const MemoryScope scope(Memory::optimizer);
  const auto states = states_of(slot);
  for (std::size_t k = 0; k < states.size(); ++k) {
    if (slot.moments[k].defined()) continue;
    slot.moments[k] = full(states[k].shape, settings_.initial, {.dtype = states[k].dtype});
    if (states[k].blocks() > 0) slot.scales[k] = zeros({states[k].blocks()});
  }
}

void Optimizer::measure(const ParamGroup&, std::int64_t, kernels::Update&) const {}

void Optimizer::update(Slot& slot, std::size_t index, const StepScaling& scaling) {
  auto& q = kernels::cpu_queue();
  const MemoryScope scope(Memory::workspace);
  const Tensor& w = slot.w;
  const ReadableGradient g = readable_gradient(w, scaling);
  const Tensor flat = w.is_contiguous() ? w : copy_of(w, w.dtype());
  kernels::Update u;
  rule(groups_[slot.group], slot.step + 1, u);
  u.n = w.numel();
  u.first = slot.step == 0;
  u.w = mutable_data(flat);
  if (is_16bit(w.dtype())) {
    u.store = store_of(settings_.storage);
    u.low = w.dtype();
  }
  if (slot.master.defined()) u.master = static_cast<float*>(mutable_data(slot.master));
  if (slot.rest.defined()) u.rest = mutable_data(slot.rest);
  u.copy_half_away = settings_.rounding == CopyRounding::half_away;
  u.g = data(g.g);
  u.g_dtype = g.g.dtype();
  u.g_scale = scaling.g_scale;
  u.round_g = is_16bit(g.round);
  if (slot.moments[0].defined()) {
    u.m = mutable_data(slot.moments[0]);
    u.moments = slot.moments[0].dtype() == Dtype::f64 ? Dtype::f32 : slot.moments[0].dtype();
  }
  if (slot.moments[1].defined()) u.v = mutable_data(slot.moments[1]);
  if (slot.scales[0].defined()) u.m_scale = static_cast<float*>(mutable_data(slot.scales[0]));
  if (slot.scales[1].defined()) u.v_scale = static_cast<float*>(mutable_data(slot.scales[1]));
  u.m_nearest = settings_.state_rounding == StateRounding::nearest_even;
  u.seed = seed_;
  u.stream = static_cast<std::uint64_t>(slot.step + 1) << 32 | static_cast<std::uint64_t>(index) << 2;  // never 0, which is the default generator's

  Tensor factor, copy;
  if (settings_.factored && w.dim() >= 2) {
    u.rows = w.size(-2);
    u.columns = w.size(-1);
    factor = make_tensor({u.n == 0 ? 0 : u.n / u.columns}, w.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
    u.factor = mutable_data(factor);
  }
  if (const auto cached = autograd::cached_dtype(w); cached && w.dtype() == Dtype::f32 && covers_its_storage(w)) {
    copy = autograd::begin_copy_update(w, *cached);
    u.copy = mutable_data(copy);
    u.low = *cached;
  }
  if (u.n > 0) {
    measure(groups_[slot.group], slot.step + 1, u);
    kernels::update(q, u);
  }

  if (!w.is_contiguous()) copy_elements(w, flat);
  bump_version(w);
  if (copy.defined()) autograd::mark_fresh(w, copy.dtype());
  slot.version = w.version();
  ++slot.step;
}

// ---- accounts ------------------------------------------------------------------------------------

OptimizerBytes Optimizer::bytes() const {
  OptimizerBytes b;
  for (const auto& slot : slots_) {
    const auto& impl = *slot.w.impl();
    const auto n = slot.w.numel(), width = static_cast<std::int64_t>(size_of(impl.dtype));
    b.weights += n * width;
    if (slot.master.defined()) b.masters += n * 4;
    if (slot.rest.defined()) b.masters += n * 2;
    if (!impl.requires_grad) continue;
    b.gradients += n * (is_16bit(impl.dtype) && impl.extra && impl.extra->grad_in_f32 ? 4 : width);
    for (const auto& state : states_of(slot)) b.states += state.bytes();
  }
  return b;
}

NamedParameters Optimizer::named_parameters() const {
  NamedParameters out;
  for (std::size_t i = 0; i < slots_.size(); ++i) out.emplace_back(reported_name(slots_[i].w, i), slots_[i].w);
  return out;
}

std::string Optimizer::kind() const {
  std::string kind = settings_.name;
  for (auto& c : kind) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  kind += fmt::format(" {}", optim::name(storage()));
  if (storage() != Storage::f32) kind += fmt::format(" {}", mezzo::name(low()));
  if (storage() == Storage::master) kind += settings_.rounding == CopyRounding::half_away ? " half_away" : " nearest_even";
  if (settings_.state_dtype) kind += fmt::format(" {} states", mezzo::name(*settings_.state_dtype));
  if (settings_.state_rounding == StateRounding::nearest_even) kind += " to nearest";
  return kind;
}

}  // namespace mezzo::optim
