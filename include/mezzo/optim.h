// optim.h - optimizers, how they keep their weights, gradient clipping, learning-rate schedules.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <mezzo/io.h>
#include <mezzo/tensor.h>

namespace mezzo::kernels {
struct Update;
}

namespace mezzo::optim {

/// Where a weight's truth is (design.md, "Precision recipes").
enum class Storage : std::uint8_t {
  f32,     ///< the f32 weights themselves
  master,  ///< f32 masters in the optimizer; the weights become 16-bit leaves
  split,
  stochastic,
  kahan,
  pure
};
/// How a master is rounded to its 16-bit weight.
enum class CopyRounding : std::uint8_t { nearest_even, half_away };

/// Parameters with hyper-parameters of their own; both may be changed between steps. Given to a constructor, a negative number (the default)
/// means the optimizer's options'; 0 is 0. In Optimizer::groups() they are the numbers in use.
struct ParamGroup {
  std::vector<Tensor> params;
  double lr = -1, weight_decay = -1;
};

/// Everything an optimizer knows but the weights: to be put in a checkpoint beside them.
struct OptimizerState {
  std::string kind;  ///< rule and storage, e.g. "adamw master bf16 nearest_even": loads only into its like
  std::int64_t step = 0;
  std::vector<std::pair<double, double>> groups;  ///< lr, weight_decay
  std::vector<std::string> names;                 ///< of the parameters; empty: not compared on loading
  /// "steps" (i64, updates a parameter), then by parameter index i "master.<i>" and "exp_avg.<i>", "exp_avg_sq.<i>" or "momentum.<i>".
  StateDict tensors;
};

/// How a step reads gradients.
struct StepScaling {
  double g_scale = 1;     ///< they are multiplied by this: 1 / loss scale times clipping
  bool unscaled = false;  ///< they went through GradScaler::unscale: an f32 gradient of a 16-bit weight is not rounded again
};

/// Bytes kept for parameters that require grad, by kind, once each had a gradient; what design.md's table says, and what memory_report() counts.
struct OptimizerBytes {
  std::int64_t weights = 0, masters = 0, gradients = 0, states = 0;
  friend bool operator==(const OptimizerBytes&, const OptimizerBytes&) = default;
};

using NamedParameters = std::vector<std::pair<std::string, Tensor>>;

/// Base of all optimizers: parameters in groups, how their weights are kept, state. A subclass brings the rule.
///
/// Parameters are leaves of a floating dtype; none twice; named by the NamedParameters constructors where they have no name yet.
/// - Storage::f32 updates f32 (and f64) parameters in place, in their own precision. A bf16 parameter is updated in f32 and rounded to nearest
///   even: updates below half its spacing vanish. An f16 parameter is an Error.
/// - Storage::master turns f32 parameters of two and more dims into 16-bit leaves (`low`), in place: the handles stay. Exempt are norm weights,
///   biases and adapters, as modules mark them. A parameter that is 16-bit already keeps its dtype and gets a master. f64 stays f64. Writing to a
///   16-bit weight between steps (load_state_dict, copy_) is seen: its master takes the new value wherever the two no longer agree.
///
/// A step is one kernel pass over each parameter that has a gradient; the others, their moments and their step counts are left alone.
class MEZZO_API Optimizer {
 public:
  virtual ~Optimizer();
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  void zero_grad();  ///< drops gradients; their memory serves the next backward
  void step();       ///< one update from .grad as it is
  /// The same with gradients scaled as they are read. Error, before anything changes: a group's lr or weight_decay negative or not finite, other
  /// parameters than it was built with, one whose dtype has changed.
  void step(const StepScaling&);
  std::vector<ParamGroup>& groups() { return groups_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  OptimizerState state() const;       ///< a copy
  OptimizerState state_view() const;  ///< the same with the live tensors, to be written out before the next step
  /// Continues from `state` bit for bit; 16-bit weights become what their masters round to. Error, before anything changes, unless kind, groups,
  /// names and shapes are this optimizer's.
  void load_state(const OptimizerState& state);
  std::int64_t steps() const { return steps_; }  ///< that updated something
  std::uint64_t id() const { return id_; }       ///< no other optimizer of this process has it
  Storage storage() const { return storage_; }
  Dtype low() const { return low_; }
  OptimizerBytes bytes() const;
  /// All parameters in order, with the name each is reported by: its own, or "param[i]".
  NamedParameters named_parameters() const;

 protected:
  struct Settings {
    const char* name;                  ///< "AdamW"
    std::vector<const char*> moments;  ///< at most two
    Storage storage;
    Dtype low;
    CopyRounding rounding;
  };
  Optimizer(std::vector<ParamGroup> groups, const Settings&);
  /// Fills in the rule and its numbers for the step-th update (from 1) of a parameter of `group`.
  virtual void rule(const ParamGroup& group, std::int64_t step, kernels::Update&) const = 0;

 private:
  struct Slot;  // what is kept for one parameter
  void check() const;
  void lower(Slot&);
  void round_master(const Slot&, const Tensor& to) const;
  void follow_weight(Slot&);
  void update(Slot&, const StepScaling&);
  std::string kind() const;

  std::vector<ParamGroup> groups_;
  std::vector<Slot> slots_;  // one a parameter, in group order
  const char* name_;
  std::vector<const char*> moments_;
  Storage storage_;
  Dtype low_;
  CopyRounding rounding_;
  std::int64_t steps_ = 0;
  std::uint64_t id_;
};

struct SgdOptions {
  double lr = 1e-3, momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// Stochastic gradient descent with momentum, torch.optim.SGD's rule: d = g + wd w; m = momentum m + d (at first d);
/// w -= lr (nesterov ? d + momentum m : m).
class MEZZO_API Sgd : public Optimizer {
 public:
  explicit Sgd(std::vector<Tensor> params, SgdOptions = {});
  explicit Sgd(NamedParameters params, SgdOptions = {});
  explicit Sgd(std::vector<ParamGroup> groups, SgdOptions = {});

 private:
  void rule(const ParamGroup&, std::int64_t, kernels::Update&) const override;
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
  Adam(std::vector<ParamGroup> groups, const char* name, const AdamOptions&, bool decoupled);

 private:
  void rule(const ParamGroup&, std::int64_t, kernels::Update&) const override;
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
/// The factor is min(1, max_norm / (norm + 1e-6)), as torch's. Error unless max_norm >= 0.
MEZZO_API double clip_grad_norm(const std::vector<Tensor>& params, double max_norm);

// ---- schedules ---------------------------------------------------------------------------------

enum class ScheduleKind : std::uint8_t { constant, linear, cosine, wsd };
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::constant;
  double lr = 1e-3;             ///< the peak
  std::int64_t steps = 0;       ///< of the whole run; constant does not need it
  std::int64_t warmup = 0;      ///< steps of linear rise from lr / warmup
  double final_fraction = 0;    ///< where linear, cosine and wsd end, as a share of lr: what step `steps` would have
  double decay_fraction = 0.2;  ///< wsd (warm-up, stable, decay; Hu et al., arXiv 2404.06395): share of `steps` at the end that decay, linearly
};
/// The learning rate of step `step` (from 0): a pure function. Beyond `steps` it stays at its last value. cosine: Loshchilov & Hutter,
/// arXiv 1608.03983. Error: lr or a step negative, warmup beyond steps, a fraction outside [0, 1], no steps to decay over.
MEZZO_API double schedule(const ScheduleOptions&, std::int64_t step);
/// "constant", "linear", "cosine", "wsd"; Error names near ones.
MEZZO_API ScheduleKind schedule_from_name(std::string_view);
MEZZO_API std::string_view name(ScheduleKind);

}  // namespace mezzo::optim
