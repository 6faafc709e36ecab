// module.cpp - registration, names, state and conversion of modules.
#include <mezzo/nn.h>

#include <algorithm>
#include <regex>
#include <unordered_set>

#include "autograd/context.h"
#include "core/fail.h"
#include "nn/state.h"
#include "tensor/layout.h"

namespace mezzo::nn {

Module::Module() = default;
Module::~Module() = default;

Tensor Module::forward(const Tensor&) { fail("Module", "forward(x) was called, but this module does not override it"); }

// ---- registration --------------------------------------------------------------------------------

namespace {
template <class... Lists> void check_name(const std::string& name, const Lists&... taken) {
  if (name.empty() || name.find('.') != name.npos) fail("Module", fmt::format("`{}` given as a name, a non-empty one without dots wanted", name));
  const auto check = [&](const auto& list) {
    for (const auto& t : list)
      if (t.first == name) fail("Module", fmt::format("the name `{}` is taken", name));
  };
  (check(taken), ...);
}
}  // namespace

Tensor Module::register_parameter(std::string name, Tensor t) {
  check_name(name, parameters_, buffers_, modules_);
  require_defined("Module", t, name.c_str());
  t.requires_grad_();
  auto& storage = *t.impl()->storage;
  storage.parameter = true;
  storage.relabel(Memory::weights);
  t.set_name(name);
  parameters_.emplace_back(std::move(name), t);
  return t;
}

Tensor Module::register_buffer(std::string name, Tensor t) {
  check_name(name, parameters_, buffers_, modules_);
  require_defined("Module", t, name.c_str());
  auto& storage = *t.impl()->storage;
  storage.buffer = true;
  storage.relabel(Memory::weights);
  buffers_.emplace_back(std::move(name), t);
  return t;
}

void Module::attach(std::string name, std::shared_ptr<Module> m) {
  check_name(name, parameters_, buffers_, modules_);
  if (!m) fail("Module", fmt::format("module `{}` is null", name));
  modules_.emplace_back(std::move(name), std::move(m));
}

void Module::add_module(std::string name, std::shared_ptr<Module> m) {
  attach(std::move(name), std::move(m));
  name_parameters();
}

void Module::register_modules(const std::vector<std::shared_ptr<Module>>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) attach(std::to_string(i), parts[i]);
  name_parameters();  // once: a thousand layers that were named again with each of them took seconds
}

void Module::mark_exempt(const Tensor& t) { t.impl()->more().exempt = true; }
void Module::mark_kept(const Tensor& t) { t.impl()->more().kept = true; }
void Module::mark_shared(const Tensor& t) { t.impl()->more().grad_in_f32 = true; }

// ---- walking -------------------------------------------------------------------------------------

template <class F> void Module::each_parameter(const std::string& prefix, const F& f) const {
  for (const auto& [name, t] : parameters_) f(prefix + name, t);
  for (const auto& [name, m] : modules_) m->each_parameter(prefix + name + '.', f);
}

/// Paths from here; a parent that registers this module names them again, with its own.
void Module::name_parameters() {
  for (auto& [path, t] : named_parameters()) t.set_name(path);
}

std::vector<std::pair<std::string, Tensor>> Module::named_parameters() const {
  std::vector<std::pair<std::string, Tensor>> out;
  std::unordered_set<const detail::TensorImpl*> seen;  // a tied parameter keeps the first path
  each_parameter("", [&](const std::string& path, const Tensor& t) {
    if (seen.insert(t.impl()).second) out.emplace_back(path, t);
  });
  return out;
}

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> out;
  for (auto& [name, t] : named_parameters()) out.push_back(t);
  return out;
}

std::vector<std::pair<std::string, Tensor>> Module::named_buffers() const {
  auto out = buffers_;
  for (const auto& [name, m] : modules_)
    for (auto& [path, t] : m->named_buffers()) out.emplace_back(fmt::format("{}.{}", name, path), t);
  return out;
}

std::vector<std::pair<std::string, Module*>> Module::named_modules() {
  std::vector<std::pair<std::string, Module*>> out{{"", this}};
  for (const auto& [name, m] : modules_)
    for (const auto& [path, part] : m->named_modules()) out.emplace_back(path.empty() ? name : fmt::format("{}.{}", name, path), part);
  return out;
}

Module& Module::train(bool on) {
  training_ = on;
  for (const auto& [name, m] : modules_) m->train(on);
  return *this;
}

void Module::zero_grad() {
  for (auto& t : parameters())
    if (t.impl()->extra) t.impl()->extra->grad = Tensor();
}

// ---- state ---------------------------------------------------------------------------------------

StateDict Module::state_dict() const {
  StateDict out = named_parameters();
  for (auto& b : named_buffers()) out.push_back(b);
  return out;
}

void Module::load_state_dict(const StateDict& state) { load_state(state_dict(), state); }

void load_state(const StateDict& own, const StateDict& state) {
  const auto find = [](const StateDict& in, const std::string& name) {
    return std::find_if(in.begin(), in.end(), [&](const auto& e) { return e.first == name; });
  };
  std::string wrong;  // all that is wrong, before anything is written
  for (const auto& [name, t] : own) {
    const auto it = find(state, name);
    if (it == state.end()) wrong += fmt::format("; `{}` is missing", name);
    else if (it->second.shape() != t.shape())
      wrong += fmt::format("; `{}` has shape {}, {} wanted", name, to_string(it->second.shape()), to_string(t.shape()));
  }
  for (const auto& [name, t] : state)
    if (find(own, name) == own.end()) wrong += fmt::format("; `{}` is unexpected", name);
  if (!wrong.empty()) fail("load_state_dict", wrong.substr(2));
  for (const auto& [name, t] : own) {
    copy_elements(t, find(state, name)->second);
    bump_version(t);
  }
}

namespace {
/// The same handle with its elements in another dtype: a leaf stays the leaf that optimizers and users hold.
void convert_in_place(const Tensor& t, Dtype dtype) {
  if (t.dtype() == dtype || !is_floating(t.dtype())) return;
  const MemoryScope scope(Memory::weights);
  const Tensor c = make_tensor(t.shape(), dtype);
  copy_elements(c, t);
  auto& impl = *t.impl();
  c.impl()->storage->parameter = impl.storage->parameter;
  c.impl()->storage->buffer = impl.storage->buffer;
  impl.storage = c.impl()->storage;
  impl.offset = 0;
  impl.strides = c.impl()->strides;
  impl.contiguous = true;
  impl.dtype = dtype;
  if (impl.extra) impl.extra->grad = Tensor();
}
}  // namespace

Module& Module::to(Dtype dtype) {
  if (!is_floating(dtype)) fail("Module::to", fmt::format("{} given, a floating dtype wanted", name(dtype)));
  for (const auto& [path, t] : state_dict())
    if (!(t.impl()->extra && t.impl()->extra->kept)) convert_in_place(t, dtype);
  return *this;
}

Module& Module::keep(const std::string& pattern, Dtype dtype) {
  if (!is_floating(dtype)) fail("Module::keep", fmt::format("{} given, a floating dtype wanted", name(dtype)));
  std::regex regex;
  try {
    regex = std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& e) { fail("Module::keep", fmt::format("`{}` is not a regular expression: {}", pattern, e.what())); }
  bool any = false;
  for (const auto& [path, t] : named_parameters()) {
    if (!std::regex_search(path, regex)) continue;
    any = true;
    convert_in_place(t, dtype);
    t.impl()->more().kept = true;
  }
  if (!any) fail("Module::keep", fmt::format("no parameter's path matches `{}`", pattern));
  return *this;
}

}  // namespace mezzo::nn
