// recipe_change.h - a run that goes on in another recipe: which may follow which, and what becomes of a checkpoint's state.
#pragma once

#include <string>

#include <mezzo/nn.h>
#include <mezzo/optim.h>
#include <mezzo/train.h>

namespace mezzo::train {

/// What a run in `from` becomes to compute in `low`, bf16 or f32, without losing a bit of its weights, masters and moments:
///     fp16 -> bf16, fp32      fp16-master -> bf16-master, fp32      fp16-pure -> bf16, fp32      bf16, bf16-master, bf16-pure -> fp32
/// Masters are the truth of either master recipe, and become fp32's weights; 16-bit weights without masters are exact in f32. Not for split, kahan
/// and stochastic storage, which complete or round their weights in a form of their own.
struct RecipeChange {
  std::string to;       ///< empty: it cannot, ...
  std::string why_not;  ///< ... and why
};
RecipeChange recipe_after(const Recipe& from, Dtype low);

/// Makes the state of an optimizer of one recipe that of `optimizer`, of one that may follow; its masters go into the weights where those are the
/// truth now. The weights have been read, widened where they were 16-bit.
void carry_over(optim::OptimizerState&, const optim::Optimizer& optimizer);

}  // namespace mezzo::train
