// state.cpp - an optimizer's state out and in, bit for bit.
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "autograd/context.h"
#include "core/fail.h"
#include "kernels/kernels.h"
#include "optim/slot.h"
#include "tensor/layout.h"

namespace mezzo::optim {

namespace {

/// to becomes from, in its own memory; undefined: nothing is kept.
void put(Tensor& to, const Tensor& from) {
  if (!from.defined()) {
    to = {};
    return;
  }
  const MemoryScope scope(Memory::optimizer);
  if (!to.defined()) to = make_tensor(from.shape(), from.dtype());
  copy_elements(to, from);
}

}  // namespace

OptimizerState Optimizer::state_view() const {
  OptimizerState s;
  s.kind = kind();
  s.step = steps_;
  s.seed = seed_;
  for (const auto& g : groups_) s.groups.emplace_back(g.lr, g.weight_decay);
  std::vector<std::int64_t> steps;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    s.names.push_back(reported_name(slots_[i].w, i));
    steps.push_back(slots_[i].step);
  }
  s.tensors.emplace_back("steps", from_span<std::int64_t>(steps, {static_cast<std::int64_t>(steps.size())}));
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto& slot = slots_[i];
    if (slot.master.defined()) s.tensors.emplace_back(state_key("master", i), slot.master);
    if (slot.rest.defined()) s.tensors.emplace_back(state_key(rest_name(storage()), i), slot.rest);
    const auto states = states_of(slot);
    for (std::size_t k = 0; k < states.size(); ++k) {
      if (slot.moments[k].defined()) s.tensors.emplace_back(state_key(states[k].name.c_str(), i), slot.moments[k]);
      if (slot.scales[k].defined()) s.tensors.emplace_back(state_key((states[k].name + ".scale").c_str(), i), slot.scales[k]);
    }
  }
  return s;
}

OptimizerState Optimizer::state() const {
  const GradMode off(false);
  OptimizerState s = state_view();
  for (auto& [name, t] : s.tensors) t = t.clone();
  return s;
}

/// The tensors of a state that is being loaded, taken out by name.
struct Optimizer::Given {
  const char* optimizer;
  std::map<std::string, Tensor, std::less<>> tensors;

  /// Error unless it is just like this; undefined where it is not `required` and missing.
  Tensor take(const std::string& key, const Shape& shape, Dtype dtype, bool required) {
    const auto it = tensors.find(key);
    if (it == tensors.end()) {
      if (required) fail(optimizer, fmt::format("the state lacks tensor `{}`", key));
      return {};
    }
    Tensor t = it->second;
    tensors.erase(it);
    if (!t.defined() || t.shape() != shape || t.dtype() != dtype)
      fail(optimizer, fmt::format("the state's `{}` is {}, {} {} wanted", key,
                                  t.defined() ? fmt::format("{} {}", to_string(t.shape()), mezzo::name(t.dtype())) : "undefined", to_string(shape),
                                  mezzo::name(dtype)));
    return t;
  }
};

void Optimizer::check_origin(const OptimizerState& s) const {
  if (s.kind != kind())
    fail(settings_.name, fmt::format("a state of `{}` given, one of `{}` wanted", s.kind, kind()),
         "build the optimizer with the rule, storage and dtype it was saved with");
  if (s.groups.size() != groups_.size())
    fail(settings_.name, fmt::format("a state with {} parameter groups given, {} wanted", s.groups.size(), groups_.size()));
  if (!s.names.empty() && s.names.size() != slots_.size())
    fail(settings_.name, fmt::format("a state of {} parameters given, {} wanted", s.names.size(), slots_.size()));
  for (std::size_t i = 0; i < s.names.size(); ++i)
    if (s.names[i] != reported_name(slots_[i].w, i))
      fail(settings_.name, fmt::format("the state's parameter {} is `{}`, `{}` wanted", i, s.names[i], reported_name(slots_[i].w, i)),
           "parameters must come in the order they were saved in");
}

Optimizer::Slot Optimizer::taken(Given& given, std::size_t i, std::int64_t updates) const {
  const Slot& slot = slots_[i];
  Slot out;
  out.step = updates;
  if (slot.master.defined()) out.master = given.take(state_key("master", i), slot.master.shape(), Dtype::f32, true);
  if (slot.rest.defined()) out.rest = given.take(state_key(rest_name(storage()), i), slot.rest.shape(), slot.rest.dtype(), true);
  const auto states = states_of(slot);
  for (std::size_t k = 0; k < states.size(); ++k) {
    const State& state = states[k];
    out.moments[k] = given.take(state_key(state.name.c_str(), i), state.shape, state.dtype, updates > 0);
    if (state.blocks() > 0) out.scales[k] = given.take(state_key((state.name + ".scale").c_str(), i), {state.blocks()}, Dtype::f32, updates > 0);
  }
  return out;
}

void Optimizer::go_on_from(Slot& slot, const Slot& loaded) {
  slot.step = loaded.step;
  for (std::size_t k = 0; k < slot.moments.size(); ++k) {
    put(slot.moments[k], loaded.moments[k]);
    put(slot.scales[k], loaded.scales[k]);
  }
  if (slot.rest.defined()) copy_elements(slot.rest, loaded.rest);
  if (!slot.master.defined()) return;
  copy_elements(slot.master, loaded.master);
  round_master(slot, slot.w);
  bump_version(slot.w);
  slot.version = slot.w.version();
}

void Optimizer::load_state(const OptimizerState& s) {
  // Everything is checked before anything changes.
  check_origin(s);
  Given given{settings_.name, {s.tensors.begin(), s.tensors.end()}};
  const Tensor steps = given.take("steps", {static_cast<std::int64_t>(slots_.size())}, Dtype::i64, true).contiguous();
  std::vector<Slot> loaded;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto updates = steps.data<std::int64_t>()[i];
    if (updates < 0 || s.step < updates)
      fail(settings_.name, fmt::format("the state counts {} updates of parameter {} in {} steps", updates, i, s.step));
    loaded.push_back(taken(given, i, updates));
  }
  if (!given.tensors.empty())
    fail(settings_.name, fmt::format("the state holds tensor `{}`, which this optimizer does not keep", given.tensors.begin()->first));

  steps_ = s.step;
  seed_ = s.seed;
  for (std::size_t k = 0; k < groups_.size(); ++k) std::tie(groups_[k].lr, groups_[k].weight_decay) = s.groups[k];
  for (std::size_t i = 0; i < slots_.size(); ++i) go_on_from(slots_[i], loaded[i]);
}

}  // namespace mezzo::optim
