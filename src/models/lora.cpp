// lora.cpp - adapters on a model's layers.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include <mezzo/models.h>

#include "core/fail.h"
#include "models/export.h"
#include "models/projection.h"

namespace mezzo::models {
namespace {

constexpr std::string_view kAllLinear = "all-linear";

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

/// Whether the target names the layer: by its whole path, or the last parts of it.
bool names(std::string_view target, std::string_view path) {
  return target == kAllLinear || path == target || (path.ends_with(target) && path[path.size() - target.size() - 1] == '.');
}

std::vector<std::pair<std::string, Projection*>> projections(const LanguageModel& model) {
  std::vector<std::pair<std::string, Projection*>> out;
  for (const auto& [path, module] : const_cast<LanguageModel&>(model).named_modules())
    if (auto* p = dynamic_cast<Projection*>(module)) out.emplace_back(path, p);
  return out;
}

}  // namespace

std::vector<std::string> targets_of(const LanguageModel& model, const std::set<std::string>& layers) {
  std::set<std::string> partly, targets;  // partly: last parts of layers that are not among them
  for (const auto& [path, p] : projections(model))
    if (!layers.count(path)) partly.insert(last_part(path));
  for (const auto& path : layers) {
    const std::string name = last_part(path);
    const auto dot = path.rfind('.', path.size() - name.size() - 2);
    targets.insert(partly.count(name) && dot != path.npos ? path.substr(dot + 1) : name);
  }
  return {targets.begin(), targets.end()};
}

void add_lora(LanguageModel& model, const LoraOptions& o) {
  const char* op = "add_lora";
  if (o.rank < 1) fail(op, fmt::format("rank {} given, 1 or more wanted", o.rank));
  if (!(o.alpha > 0)) fail(op, fmt::format("alpha {} given, a number above 0 wanted", o.alpha));
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(op, fmt::format("dropout {} given, 0 <= p < 1 wanted", o.dropout));
  const auto layers = projections(model);
  std::vector<std::string> known;
  for (const auto& [path, p] : layers) {
    if (const std::string name = last_part(path); std::find(known.begin(), known.end(), name) == known.end()) known.push_back(name);
    if (p->has_lora()) fail(op, fmt::format("`{}` already has an adapter", path), "load the model anew to begin with other adapters");
  }
  if (layers.empty()) fail(op, "this model has no layers that adapters attach to", "Gpt, Llama and its relatives have");
  known.emplace_back(kAllLinear);
  for (const auto& t : o.targets)
    if (std::none_of(layers.begin(), layers.end(), [&](const auto& layer) { return names(t, layer.first); }))
      fail(op, fmt::format("no layer is called `{}`; there are {}", t, fmt::join(known, ", ")), near_names(t, known));
  if (o.targets.empty()) fail(op, fmt::format("no target given, some of {} wanted", fmt::join(known, ", ")));
  for (auto& w : model.parameters()) w.requires_grad_(false);
  for (const auto& [path, p] : layers)
    if (std::any_of(o.targets.begin(), o.targets.end(), [&, &layer = path](const auto& t) { return names(t, layer); })) p->add_lora(o);
  for (auto& [path, w] : model.named_parameters()) w.set_name(path);  // layers that take a module in late do not know their own path
}

std::vector<std::pair<std::string, Tensor>> trainable_parameters(const nn::Module& model) {
  std::vector<std::pair<std::string, Tensor>> out;
  for (auto& [path, w] : model.named_parameters())
    if (w.requires_grad()) out.emplace_back(path, w);
  return out;
}

}  // namespace mezzo::models
