// train.h - precision recipes and the training step as a transaction.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/amp.h>
#include <mezzo/optim.h>

namespace mezzo::train {

/// A precision recipe, resolved: what runs in which dtype, where the truth is, how the loss is scaled (docs/precision-recipes.md).
struct Recipe {
  std::string name;  ///< "fp32", "bf16", "fp16", "bf16-master", "fp16-master", "bf16-split", "bf16-kahan", "bf16-sr", "bf16-pure", "fp16-pure"
  bool autocast = false;
  Dtype low = Dtype::f32;  ///< of forward and backward
  optim::Storage storage = optim::Storage::f32;
  bool scaling = false;             ///< the loss is scaled by default: dynamically, or ...
  double static_scale = 0;          ///< ... by this
  double bytes_per_parameter = 16;  ///< AdamW on matrix parameters: weights, masters, gradients, states, cached casts
};
/// Error that lists near names. "auto" resolves for this CPU and a wide model: bf16 where it has the instructions, else
/// fp32; resolve() looks at the model's width and the batch as well.
MEZZO_API Recipe recipe(std::string_view name);
MEZZO_API std::vector<std::string> recipe_names();

/// Every choice of precision, made before step 0, printed and stored in checkpoints.
struct PrecisionPlan {
  Recipe recipe;
  std::string requested;                         ///< as the user wrote it: "auto", ...
  std::string isa, reason;                       ///< why auto chose; what is emulated
  std::optional<amp::GradScalerOptions> scaler;  ///< unset: no scaling
  std::string frozen;                            ///< how matrices that are not trained are kept, beside adapters; empty: there are none
  std::vector<std::string> stays_f32;            ///< what is kept in f32, and why
  std::vector<std::string> warnings;
};
struct PlanOptions {
  std::string precision = "auto";
  std::string loss_scale = {};  ///< "dynamic", "none", a number, or empty: the recipe's
  double width = 0;             ///< of the model's matrices (matrix_width), for "auto"; 0: wide
  std::string frozen = {};      ///< PrecisionPlan::frozen
  double rows = 0;              ///< of a micro-batch's activations (examples, or tokens), for "auto"; 0: many
};
/// The side of a square with as many elements as the matrix has that an average multiplication belongs to: sqrt(sum n^2 / sum n) over the
/// parameters of two and more dims, n their elements. 0 without any.
MEZZO_API double matrix_width(const std::vector<Tensor>& parameters);
MEZZO_API PrecisionPlan resolve(const PlanOptions&);
MEZZO_API std::string to_string(const PrecisionPlan&);

struct StepOptions {
  std::string recipe = "auto";
  double clip_norm = 0;
  int accumulate = 1;
  std::optional<amp::GradScalerOptions> scaler = {};  ///< unset: the recipe's
  /// The loss is divided by this besides: it is then a mean over a larger global batch, of which the step runs a share. Gradients flow that much
  /// smaller (what a 16-bit format must bear), and are multiplied by it again when the optimizer reads them: the norm, clipping, AdamW's eps and the
  /// learning rate mean what they mean without it, and in exact arithmetic it changes nothing.
  double loss_divisor = 1;
  /// PlanOptions::rows. 0: under "auto" those of the first micro-batch's largest product are counted, and the choice is made anew from the second on.
  double rows = 0;
  /// Each parameter is updated, and its gradient freed, as soon as backward has completed the gradient: they are never all there at once. The same
  /// bits. Such a step cannot be taken back: refused with clipping, loss scaling or accumulation, and a gradient that holds Inf or NaN is an Error
  /// that leaves some parameters updated.
  bool fuse_optimizer = false;
  std::optional<amp::Policy> policy = {};  ///< of the autocast region, where the recipe has one; unset: amp::AutocastOptions says which
};

struct StepReport {
  double loss = 0;  ///< mean over micro-batches, as the model gave it (before loss_divisor)
  amp::StepResult result;
  bool applied() const { return result.applied; }
};

/// One optimizer step: micro-batches under the recipe's autocast, scaled backward, finite check, clipping, update, scaler.
/// The optimizer must have been built with the recipe's storage and low dtype. A step is applied whole or not at all.
class MEZZO_API Step {
 public:
  explicit Step(optim::Optimizer&, StepOptions = {});
  ~Step();
  Step(Step&&) noexcept;
  /// `before_update` is called when all gradients are there, still times the loss scale, before they are checked and used: to look at them.
  StepReport operator()(const std::function<Tensor(int micro)>& loss, const std::function<void()>& before_update = {});
  /// Forward and backward alone, with the loss times `scale` and, where the recipe has autocast, under `policy` if given instead of the step's;
  /// gradients are dropped and nothing is updated. To look at what a step did (inspect::find_overflow).
  void rehearse(const std::function<Tensor(int micro)>& loss, double scale, const std::optional<amp::Policy>& policy = {});
  amp::GradScaler& scaler();
  const amp::GradScaler& scaler() const;
  const PrecisionPlan& plan() const;  ///< with recipe "auto" and no rows: final after the first step

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mezzo::train
