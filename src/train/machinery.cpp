// machinery.cpp - builds model, optimizer and step, and looks for what is not finite in them.
#include "train/machinery.h"

#include <algorithm>

#include <fmt/core.h>

#include "kernels/kernels.h"
#include "tensor/impl.h"
#include "train/rules.h"

namespace mezzo::train {
namespace {

kernels::GradStats look_at(const Tensor& t) {
  auto& q = kernels::cpu_queue();
  kernels::GradStats stats;
  kernels::grad_stats(q, t.dtype(), data(t), t.numel(), 1, &stats);
  return kernels::read(q, &stats);
}

}  // namespace

Machinery build(const models::ModelOptions& shape, const TrainOptions& o, const PrecisionPlan& plan) {
  Machinery m;
  m.model = o.tune ? load_base(o, plan.recipe) : models::make_model(shape);
  m.model->checkpoint_every(o.checkpoint_every);
  // Decay pulls matrices towards zero; biases and norm weights have no reason to be small.
  optim::ParamGroup decayed{.params = {}, .lr = o.lr, .weight_decay = o.weight_decay}, free{.params = {}, .lr = o.lr, .weight_decay = 0};
  for (const auto& [path, w] : models::trainable_parameters(*m.model)) (w.dim() >= 2 ? decayed : free).params.push_back(w);
  m.optimizer = make_optimizer(o, plan.recipe, {decayed, free});
  m.step = std::make_unique<Step>(*m.optimizer, StepOptions{.recipe = plan.recipe.name,
                                                            .clip_norm = o.clip_norm,
                                                            .accumulate = o.accumulate,
                                                            .scaler = plan.scaler.value_or(amp::GradScalerOptions{.enabled = false}),
                                                            .loss_divisor = train::loss_divisor(o),
                                                            .fuse_optimizer = o.fuse_optimizer,
                                                            .policy = policy_of(o)});
  m.weights = o.tune && !o.tune->full ? models::trainable_parameters(*m.model) : m.model->state_dict();
  m.model->train();
  return m;
}

bool is_finite(const Machinery& m) {
  const auto finite = [](const std::pair<std::string, Tensor>& entry) {
    if (!is_floating(entry.second.dtype())) return true;
    const auto found = look_at(entry.second);
    return found.nan == 0 && found.inf == 0;
  };
  const auto state = m.optimizer->state_view();
  return std::all_of(m.weights.begin(), m.weights.end(), finite) && std::all_of(state.tensors.begin(), state.tensors.end(), finite);
}

std::string first_bad_tensor(const models::LanguageModel& model, const amp::StepResult& result) {
  for (const auto& [path, w] : model.named_parameters()) {
    const auto found = look_at(w);
    if (found.nan > 0 || found.inf > 0) return fmt::format("the first bad tensor is the parameter `{}` ({})", path, found.nan > 0 ? "NaN" : "Inf");
  }
  return fmt::format("all parameters are finite, the first bad tensor is the gradient of `{}` ({})", result.culprit,
                     result.found_nan ? "NaN" : "Inf");
}

}  // namespace mezzo::train
