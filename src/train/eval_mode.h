// eval_mode.h - a model in evaluation mode, for a scope.
#pragma once

#include <mezzo/nn.h>

namespace mezzo::train {

class EvalMode {
 public:
  explicit EvalMode(nn::Module& m) : model_(m), before_(m.is_training()) { m.eval(); }
  ~EvalMode() { model_.train(before_); }
  EvalMode(const EvalMode&) = delete;
  EvalMode& operator=(const EvalMode&) = delete;

 private:
  nn::Module& model_;
  bool before_;
};

}  // namespace mezzo::train
