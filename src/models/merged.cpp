// merged.cpp - a model's weights with its adapters added in, one by one.
#include <unordered_map>

#include "autograd/context.h"
#include "models/export.h"
#include "models/projection.h"
#include "models/table.h"

namespace mezzo::models {
namespace {

bool is_factor(const std::string& path) { return path.ends_with(".lora_A.weight") || path.ends_with(".lora_B.weight"); }

}  // namespace

bool has_blocks(const LanguageModel& model) {
  for (const auto& [path, module] : const_cast<LanguageModel&>(model).named_modules())
    if (const auto* p = dynamic_cast<const Projection*>(module); p && !p->weight.defined()) return true;
  return false;
}

std::vector<MergedWeight> merged_weights(const LanguageModel& model) {
  // Modules in order, each with the parameters of its own: a projection's weight may be in blocks, which are no parameter.
  std::unordered_map<std::string, std::vector<std::pair<std::string, Tensor>>> of_module;
  for (const auto& [path, w] : model.named_parameters()) {
    const auto dot = path.rfind('.');
    of_module[dot == path.npos ? std::string() : path.substr(0, dot)].emplace_back(path, w);
  }
  std::vector<MergedWeight> out;
  for (const auto& [path, module] : const_cast<LanguageModel&>(model).named_modules()) {
    const auto* projection = dynamic_cast<const Projection*>(module);
    if (projection)
      out.push_back({path + ".weight",
                     {projection->out(), projection->in()},
                     projection->weight.defined() ? projection->weight.dtype() : Dtype::f32,
                     [projection] { return projection->merged(); }});
    if (const auto* table = dynamic_cast<const Table*>(module); table && table->blocks())
      out.push_back(
          {path + ".weight", {table->blocks()->rows, table->blocks()->cols}, Dtype::f32, [table] { return unpacked(*table->blocks(), Dtype::f32); }});
    for (const auto& [name, w] : of_module[path]) {
      if (is_factor(name) || (projection && name.ends_with(".weight"))) continue;
      out.push_back({name, w.shape(), w.dtype(), [w = w] { return w.detach().to(Dtype::f32); }});
    }
  }
  return out;
}

}  // namespace mezzo::models
