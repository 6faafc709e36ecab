// fused_update.h - optimizer steps inside backward: each parameter as soon as its gradient is complete, and the gradient is freed.
#pragma once

#include <unordered_map>
#include <vector>

#include <mezzo/amp.h>
#include <mezzo/optim.h>

#include "optim/gradients.h"

namespace mezzo::train {

class FusedUpdate {
 public:
  explicit FusedUpdate(optim::Optimizer& optimizer);
  /// The gradient of `loss`, with each parameter updated on the way from gradients times `multiplier`; no gradient is left. The norm is that which
  /// all gradients together have. Error: a gradient holds Inf or NaN; that parameter and those after it in the graph's order are as they were.
  amp::StepResult backward(const Tensor& loss, double multiplier);

 private:
  void take(std::size_t index);

  optim::Optimizer& optimizer_;
  std::vector<Tensor> params_;  // in the groups' order
  std::unordered_map<const detail::TensorImpl*, std::size_t> index_;
  optim::StepScaling scaling_;
  std::vector<optim::GradientTotals> totals_;  // by parameter
  std::size_t updated_ = 0;
};

}  // namespace mezzo::train
