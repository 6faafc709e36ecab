// machinery.cpp
#include "train/machinery.h"

#include "core/allocator.h"
#include "train/rules.h"

namespace mezzo::train {

Machinery build(const models::ModelOptions& shape, const TrainOptions& o, const PrecisionPlan& plan) {
  Machinery m;
  m.model = models::make_model(shape);
  // Decay pulls matrices towards zero; biases and norm weights have no reason to be small.
  optim::ParamGroup decayed{.params = {}, .lr = o.lr, .weight_decay = o.weight_decay}, free{.params = {}, .lr = o.lr, .weight_decay = 0};
  for (const auto& w : m.model->parameters()) (w.dim() >= 2 ? decayed : free).params.push_back(w);
  m.optimizer = make_optimizer(o, plan.recipe, {decayed, free});
  m.step = std::make_unique<Step>(*m.optimizer, StepOptions{.recipe = plan.recipe.name,
                                                            .clip_norm = o.clip_norm,
                                                            .accumulate = o.accumulate,
                                                            .scaler = plan.scaler.value_or(amp::GradScalerOptions{.enabled = false}),
                                                            .loss_divisor = train::loss_divisor(o)});
  const MemoryScope scope(Memory::data);
  m.x = empty({o.batch, o.seq}, {.dtype = Dtype::i32});
  m.y = empty({o.batch, o.seq}, {.dtype = Dtype::i32});
  m.model->train();
  return m;
}

}  // namespace mezzo::train
