// optim.h - optimizers, how they keep their weights, gradient clipping, learning-rate schedules.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <mezzo/io.h>
#include <mezzo/tensor.h>

namespace mezzo::optim {

/// Where a weight's truth is (design.md, "Precision recipes").
enum class Storage : std::uint8_t {
  f32,        ///< the f32 weights themselves
  master,     ///< f32 masters in the optimizer; the weights become 16-bit leaves
  split, stochastic, kahan, pure
};
/// How a master is rounded to its 16-bit weight.
enum class CopyRounding : std::uint8_t { nearest_even, half_away };

struct ParamGroup {
  std::vector<Tensor> params;
  double lr = 0, weight_decay = 0;
};

/// Everything an optimizer knows but the weights: to be put in a checkpoint beside them.
struct OptimizerState {
  std::int64_t step = 0;
  std::vector<std::pair<double, double>> groups;  ///< lr, weight_decay
  StateDict tensors;                              ///< "exp_avg.<i>", "exp_avg_sq.<i>", "momentum.<i>", "master.<i>" by parameter index
};

/// What an optimizer's pass does besides the update itself.
struct StepScaling {
  double g_scale = 1;  ///< gradients are multiplied by this as they are read: 1 / loss scale, clipping
};

/// Bytes it keeps, by kind; what precision.md's table says, and what the allocator must agree with.
struct OptimizerBytes { std::int64_t weights = 0, masters = 0, gradients = 0, states = 0; };

using NamedParameters = std::vector<std::pair<std::string, Tensor>>;

/// Base of all optimizers. Give it f32 parameters: with a Storage other than f32 the same handles become 16-bit leaves
/// (exempt: norm weights, biases, adapters, raw tensors of fewer than two dims; these stay f32).
class MEZZO_API Optimizer {
 public:
  virtual ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  void zero_grad();                       ///< drops gradients; their memory serves the next backward
  void step();                            ///< one update from .grad as it is; parameters without a gradient are left alone
  void step(const StepScaling&);          ///< the same with gradients scaled as they are read
  std::vector<ParamGroup>& groups() { return groups_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  OptimizerState state() const;
  /// Error when shapes, names or the storage do not match.
  void load_state(const OptimizerState&);
  std::int64_t steps() const { return steps_; }
  Storage storage() const { return storage_; }
  Dtype low() const { return low_; }
  OptimizerBytes bytes() const;
  /// All parameters in order, with the name each is reported by: its own, or "param[i]".
  NamedParameters named_parameters() const;

 protected:
  struct Slot;                            ///< what is kept for one parameter
  Optimizer(std::vector<ParamGroup> groups, Storage, Dtype low, CopyRounding);
  virtual void update(std::size_t group, Tensor& w, Slot& slot, const StepScaling&, std::int64_t step) = 0;
  virtual std::vector<std::string> state_names() const = 0;  ///< of a slot's moments, in order

  std::vector<ParamGroup> groups_;
  std::vector<Slot> slots_;               ///< one a parameter, in group order
  Storage storage_;
  Dtype low_;
  CopyRounding rounding_;
  std::int64_t steps_ = 0;
};

struct SgdOptions {
  double lr = 1e-3, momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// torch.optim.SGD's rule.
class MEZZO_API Sgd : public Optimizer {
 public:
  explicit Sgd(std::vector<Tensor> params, SgdOptions = {});
  explicit Sgd(NamedParameters params, SgdOptions = {});
  explicit Sgd(std::vector<ParamGroup> groups, SgdOptions = {});

 private:
  void update(std::size_t, Tensor&, Slot&, const StepScaling&, std::int64_t) override;
  std::vector<std::string> state_names() const override;
  SgdOptions options_;
};

struct AdamOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8, weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  Dtype state_dtype = Dtype::f32;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// Adam (Kingma & Ba, arXiv 1412.6980), weight decay added to the gradient.
class MEZZO_API Adam : public Optimizer {
 public:
  explicit Adam(std::vector<Tensor> params, AdamOptions = {});
  explicit Adam(NamedParameters params, AdamOptions = {});
  explicit Adam(std::vector<ParamGroup> groups, AdamOptions = {});

 protected:
  Adam(std::vector<ParamGroup> groups, AdamOptions, bool decoupled);

 private:
  void update(std::size_t, Tensor&, Slot&, const StepScaling&, std::int64_t) override;
  std::vector<std::string> state_names() const override;
  AdamOptions options_;
  bool decoupled_ = false;
};

struct AdamWOptions {
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8, weight_decay = 0.01;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  Dtype state_dtype = Dtype::f32;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// AdamW (Loshchilov & Hutter, arXiv 1711.05101), decoupled weight decay.
class MEZZO_API AdamW : public Adam {
 public:
  explicit AdamW(std::vector<Tensor> params, AdamWOptions = {});
  explicit AdamW(NamedParameters params, AdamWOptions = {});
  explicit AdamW(std::vector<ParamGroup> groups, AdamWOptions = {});
};

/// Scales the gradients of `params` in place so that their total 2-norm is at most max_norm; returns the norm before. Not finite: left as they are.
MEZZO_API double clip_grad_norm(const std::vector<Tensor>& params, double max_norm);

// ---- schedules ---------------------------------------------------------------------------------

enum class ScheduleKind : std::uint8_t { constant, linear, cosine, wsd };
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::constant;
  double lr = 1e-3;
  std::int64_t steps = 0;         ///< of the whole run
  std::int64_t warmup = 0;        ///< steps of linear rise from lr / warmup
  double final_fraction = 0;      ///< linear, cosine, wsd: last lr as a share of lr
  double decay_fraction = 0.2;    ///< wsd (warm-up, stable, decay; Hu et al., arXiv 2404.06395): share of steps that decay, linearly
};
/// The learning rate of step `step` (from 0): a pure function.
MEZZO_API double schedule(const ScheduleOptions&, std::int64_t step);
/// "constant", "linear", "cosine", "wsd"; Error names near ones.
MEZZO_API ScheduleKind schedule_from_name(std::string_view);

}  // namespace mezzo::optim
