// recipe_change.cpp - the recipe that follows, and the optimizer's state carried into it.
#include "train/recipe_change.h"

#include <fmt/core.h>

#include "nn/state.h"

namespace mezzo::train {

using optim::Storage;

RecipeChange recipe_after(const Recipe& from, Dtype low) {
  const auto refused = [](std::string why) { return RecipeChange{.to = {}, .why_not = std::move(why)}; };
  if (from.low == Dtype::f32) return refused("the run is in f32 already");
  if (low == Dtype::bf16 && from.low != Dtype::f16) return refused(fmt::format("the run is in {}, not in f16", name(from.low)));
  if (from.storage == Storage::split || from.storage == Storage::kahan || from.storage == Storage::stochastic)
    return refused(fmt::format("what {} keeps of its weights is no other recipe's", from.name));
  if (low == Dtype::f32) return {.to = "fp32", .why_not = {}};
  // pure: a bf16 weight would lose three bits of the f16 one, an f32 weight none.
  return {.to = from.storage == Storage::master ? "bf16-master" : "bf16", .why_not = {}};
}

void carry_over(optim::OptimizerState& state, const optim::Optimizer& optimizer) {
  state.kind = optimizer.state_view().kind;
  if (optimizer.storage() != Storage::f32) return;
  constexpr std::string_view kMaster = "master.";
  StateDict weights, masters;
  const auto parameters = optimizer.named_parameters();
  std::erase_if(state.tensors, [&](const auto& entry) {
    if (!entry.first.starts_with(kMaster)) return false;
    const auto index = static_cast<std::size_t>(std::stoll(entry.first.substr(kMaster.size())));
    weights.push_back(parameters.at(index));
    masters.emplace_back(parameters.at(index).first, entry.second);
    return true;
  });
  nn::load_state(weights, masters);
}

}  // namespace mezzo::train
