// lora.cpp - adapters on a model's layers.
#include <algorithm>

#include <fmt/ranges.h>

#include <mezzo/models.h>

#include "core/fail.h"
#include "models/projection.h"

namespace mezzo::models {

void add_lora(LanguageModel& model, const LoraOptions& o) {
  const char* op = "add_lora";
  if (o.rank < 1) fail(op, fmt::format("rank {} given, 1 or more wanted", o.rank));
  if (!(o.alpha > 0)) fail(op, fmt::format("alpha {} given, a number above 0 wanted", o.alpha));
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(op, fmt::format("dropout {} given, 0 <= p < 1 wanted", o.dropout));
  std::vector<std::pair<std::string, Projection*>> layers;
  std::vector<std::string> names;
  for (const auto& [path, module] : model.named_modules()) {
    auto* p = dynamic_cast<Projection*>(module);
    if (!p) continue;
    const std::string name = path.substr(path.rfind('.') + 1);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    if (p->has_lora()) fail(op, fmt::format("`{}` already has an adapter", path), "load the model anew to begin with other adapters");
    layers.emplace_back(name, p);
  }
  if (layers.empty()) fail(op, "this model has no layers that adapters attach to", "Llama and its relatives have");
  for (const auto& t : o.targets) {
    if (std::find(names.begin(), names.end(), t) != names.end()) continue;
    const std::vector<std::string_view> known(names.begin(), names.end());
    fail(op, fmt::format("no layer is called `{}`; there are {}", t, fmt::join(names, ", ")), near_names(t, known));
  }
  if (o.targets.empty()) fail(op, fmt::format("no target given, some of {} wanted", fmt::join(names, ", ")));
  for (auto& w : model.parameters()) w.requires_grad_(false);
  for (auto& [name, p] : layers)
    if (std::find(o.targets.begin(), o.targets.end(), name) != o.targets.end()) p->add_lora(o);
  for (auto& [path, w] : model.named_parameters()) w.set_name(path);  // layers that take a module in late do not know their own path
}

std::vector<std::pair<std::string, Tensor>> trainable_parameters(const nn::Module& model) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (auto& [path, w] : model.named_parameters())
    if (w.requires_grad()) out.emplace_back(path, w);
  return out;
}

}  // namespace mezzo::models
