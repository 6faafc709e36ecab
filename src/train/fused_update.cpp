// fused_update.cpp - a backward that hands each complete gradient to the optimizer.
#include "train/fused_update.h"

#include <cmath>

#include "autograd/node.h"
#include "core/fail.h"

namespace mezzo::train {

FusedUpdate::FusedUpdate(optim::Optimizer& optimizer) : optimizer_(optimizer) {
  for (const auto& group : optimizer.groups())
    for (const auto& w : group.params) {
      index_.emplace(w.impl(), params_.size());
      params_.push_back(w);
    }
}

amp::StepResult FusedUpdate::backward(const Tensor& loss, double multiplier) {
  scaling_ = {.g_scale = multiplier};
  totals_.assign(params_.size(), {});
  updated_ = 0;
  optimizer_.begin_step(scaling_);
  const Tensor one = ones(loss.shape(), {.dtype = loss.dtype()});
  autograd::run_backward({&loss, 1}, {&one, 1}, {.on_leaf_grad_ready = [this](detail::TensorImpl& leaf) {
                           if (const auto it = index_.find(&leaf); it != index_.end()) take(it->second);
                         }});
  optimizer_.end_step();

  optim::GradientTotals all;
  for (const auto& t : totals_) {  // in the groups' order, whatever backward's was
    all.sum_squares += t.sum_squares;
    all.zero += t.zero;
    all.elements += t.elements;
  }
  return {.applied = true,
          .grad_norm = std::sqrt(all.sum_squares),
          .zero_fraction = all.elements > 0 ? static_cast<double>(all.zero) / static_cast<double>(all.elements) : 0};
}

void FusedUpdate::take(std::size_t index) {
  const Tensor& w = params_[index];
  if (!w.grad().defined()) return;
  totals_[index] = optim::measure_gradients({{.params = {w}}}, scaling_);
  if (!totals_[index].finite())
    fail("train::Step",
         fmt::format("the gradient of `{}` holds {}, when {} of {} parameters had been updated already", optimizer_.named_parameters()[index].first,
                     totals_[index].nan > 0 ? "NaN" : "Inf", updated_, params_.size()),
         "continue from a checkpoint; without .fuse_optimizer such a step changes nothing");
  optimizer_.step_on(index);
  w.set_grad({});
  ++updated_;
}

}  // namespace mezzo::train
