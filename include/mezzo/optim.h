// optim.h - optimizers, how they keep their weights, gradient clipping, learning-rate schedules.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
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

/// Where a weight's truth is (docs/precision-recipes.md). With all but f32 the weights become 16-bit leaves.
enum class Storage : std::uint8_t {
  f32,         ///< the f32 weights themselves
  master,      ///< f32 masters in the optimizer
  split,       ///< bf16 weights, and 16 bits in the optimizer that complete them to the f32 number; those of `master` with half_away, in 2 bytes less
  stochastic,  ///< bf16 weights, rounded up or down by chance, in proportion to the distances: nothing is lost on average
  kahan,       ///< bf16 weights, and in the optimizer a bf16 compensation: what the last rounding left over (Zamirai et al., arXiv 2010.06192)
  pure         ///< 16-bit weights, rounded to nearest: updates below half their spacing vanish. The baseline that the others are measured by
};
MEZZO_API std::string_view name(Storage);  ///< "f32", "master", ...
/// How a master is rounded to its 16-bit weight.
enum class CopyRounding : std::uint8_t { nearest_even, half_away };
/// How a moment is rounded to bf16.
enum class StateRounding : std::uint8_t { stochastic, nearest_even };

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
  std::uint64_t seed = 0;                         ///< of what is rounded by chance
  std::vector<std::pair<double, double>> groups;  ///< lr, weight_decay
  std::vector<std::string> names;                 ///< of the parameters; empty: not compared on loading
  /// "steps" (i64, updates a parameter), then by parameter index i "master.<i>", "remainder.<i>" (the 16 bits of `split`, as u8 (..., 2)) or
  /// "compensation.<i>", and the rule's moments: "exp_avg.<i>", "exp_avg_sq.<i>"; "momentum.<i>"; "sum.<i>"; "row_var.<i>", "col_var.<i>" or
  /// "variance.<i>". Of moments in 8 bits these are codes, and "exp_avg.scale.<i>" the largest of each 256.
  StateDict tensors;
};

/// How a step reads gradients.
struct StepScaling {
  double g_scale = 1;     ///< they are multiplied by this: 1 / loss scale times clipping
  bool unscaled = false;  ///< they went through GradScaler::unscale: an f32 gradient of a 16-bit weight is not rounded again
};

/// Bytes kept for parameters that require grad, by kind, once each had a gradient; as docs/precision-recipes.md says and memory_report() counts.
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
/// - The others turn f32 parameters of two and more dims into 16-bit leaves (`low`), in place: the handles stay. Exempt, except under `pure`, are
///   norm weights, biases and adapters, as modules mark them; always what Module::keep() chose. A parameter that is 16-bit already keeps its dtype.
///   f64 stays f64. split, stochastic and kahan are for bf16. master and split begin at the exact f32 value, the others at it rounded to nearest.
/// - Writing to a 16-bit weight between steps (load_state_dict, copy_) is seen: its master takes the new value wherever the two no longer agree; a
///   remainder or compensation stays as far as it is less than the weight's spacing.
///
/// Moments are f32 (f64 for f64), or what `state_dtype` says: bf16, or u8, Adam's in 8 bits (dynamic map, blocks of 256: Dettmers et al., arXiv
/// 2110.02861), but f32 for parameters of fewer than 4096 elements. Unset, they are bf16 for the weights of stochastic and kahan, else f32. 8-bit
/// and, unless state_rounding says otherwise, 16-bit moments are rounded by chance: to nearest, a second moment would never decay again. What is
/// rounded by chance is keyed by (seed of manual_seed when the optimizer was built, updates, parameter, element), whatever the threads.
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
  /// A step taken apart, for gradients that are used up one by one while backward still runs: begin_step() checks what step() checks, step_on()
  /// updates parameter `index` (in the groups' order) if it has a gradient, end_step() counts. Each at most once a step; the bits are those of
  /// step().
  void begin_step(const StepScaling& = {});
  void step_on(std::size_t index);
  void end_step();
  std::vector<ParamGroup>& groups() { return groups_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  OptimizerState state() const;       ///< a copy
  OptimizerState state_view() const;  ///< the same with the live tensors, to be written out before the next step
  /// Continues from `state` bit for bit; 16-bit weights become what their masters round to (those of the other storages travel with the model).
  /// Error, before anything changes, unless kind, groups, names and shapes are this optimizer's.
  void load_state(const OptimizerState& state);
  std::int64_t steps() const { return steps_; }  ///< that updated something
  std::uint64_t id() const { return id_; }       ///< no other optimizer of this process has it
  Storage storage() const { return settings_.storage; }
  Dtype low() const { return settings_.low; }
  OptimizerBytes bytes() const;
  /// All parameters in order, with the name each is reported by: its own, or "param[i]".
  NamedParameters named_parameters() const;

 protected:
  struct Settings {
    const char* name;                  ///< "AdamW"
    std::vector<const char*> moments;  ///< at most two; of a factored parameter
    Storage storage = Storage::f32;
    Dtype low = Dtype::bf16;
    CopyRounding rounding = CopyRounding::nearest_even;
    std::optional<Dtype> state_dtype = {};
    StateRounding state_rounding = StateRounding::stochastic;
    bool factored = false;     ///< the moments are (..., R, 1) and (..., 1, C); of fewer than two dims one, "variance"
    double initial = 0;        ///< of the moments
    double slowest_decay = 0;  ///< of a moment: 0.999 keeps 0.999 of it a step; 1: it never shrinks
  };
  Optimizer(std::vector<ParamGroup> groups, const Settings&);
  /// Fills in the rule and its numbers for the step-th update (from 1) of a parameter of `group`.
  virtual void rule(const ParamGroup& group, std::int64_t step, kernels::Update&) const = 0;
  /// What the rule must know of the whole parameter before its pass; the Update is complete otherwise.
  virtual void measure(const ParamGroup& group, std::int64_t step, kernels::Update&) const;

 private:
  struct Slot;   // what is kept for one parameter
  struct State;  // what one moment of it looks like
  struct Given;  // tensors of a state that is being loaded
  void check() const;
  void lower(Slot&);
  void round_master(const Slot&, const Tensor& to) const;
  void follow_weight(Slot&);
  void prepare(Slot&);
  void update(Slot&, std::size_t index, const StepScaling&);
  std::vector<State> states_of(const Slot&) const;
  void check_origin(const OptimizerState&) const;
  Slot taken(Given&, std::size_t index, std::int64_t updates) const;
  void go_on_from(Slot&, const Slot& loaded);
  std::string kind() const;

  std::vector<ParamGroup> groups_;
  std::vector<Slot> slots_;  // one a parameter, in group order
  Settings settings_;
  std::int64_t steps_ = 0;
  std::uint64_t id_, seed_;
  StepScaling scaling_;   // of a step that is taken apart ...
  bool updated_ = false;  // ... and whether it has updated something
};

struct SgdOptions {
  double lr = 1e-3, momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  std::optional<Dtype> state_dtype = {};  ///< f32, bf16; unset: the storage's
  StateRounding state_rounding = StateRounding::stochastic;
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
  std::optional<Dtype> state_dtype = {};  ///< f32, bf16, u8; unset: the storage's
  StateRounding state_rounding = StateRounding::stochastic;
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
  std::optional<Dtype> state_dtype = {};  ///< f32, bf16, u8; unset: the storage's
  StateRounding state_rounding = StateRounding::stochastic;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// AdamW (Loshchilov & Hutter, arXiv 1711.05101), decoupled weight decay.
class MEZZO_API AdamW : public Adam {
 public:
  explicit AdamW(std::vector<Tensor> params, AdamWOptions = {});
  explicit AdamW(NamedParameters params, AdamWOptions = {});
  explicit AdamW(std::vector<ParamGroup> groups, AdamWOptions = {});
};

struct AdagradOptions {
  double lr = 1e-2, lr_decay = 0, eps = 1e-10, weight_decay = 0;
  double initial_accumulator_value = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  std::optional<Dtype> state_dtype = {};  ///< f32, bf16 (never to nearest: the sum would stop growing); unset: the storage's
  StateRounding state_rounding = StateRounding::stochastic;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// Adagrad (Duchi, Hazan & Singer, JMLR 12, 2011), torch.optim.Adagrad's rule: d = g + wd w; sum += d^2;
/// w -= lr / (1 + (t - 1) lr_decay) d / (sqrt(sum) + eps).
class MEZZO_API Adagrad : public Optimizer {
 public:
  explicit Adagrad(std::vector<Tensor> params, AdagradOptions = {});
  explicit Adagrad(NamedParameters params, AdagradOptions = {});
  explicit Adagrad(std::vector<ParamGroup> groups, AdagradOptions = {});

 private:
  void rule(const ParamGroup&, std::int64_t, kernels::Update&) const override;
  AdagradOptions options_;
};

struct LionOptions {
  double lr = 1e-4;
  std::array<double, 2> betas = {0.9, 0.99};
  double weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  std::optional<Dtype> state_dtype = {};  ///< f32, bf16; unset: the storage's
  StateRounding state_rounding = StateRounding::stochastic;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// Lion (Chen et al., arXiv 2302.06675): w -= lr (sign(beta1 m + (1 - beta1) g) + wd w); m = beta2 m + (1 - beta2) g. One moment; every element
/// moves by lr, so its lr is a third to a tenth of AdamW's.
class MEZZO_API Lion : public Optimizer {
 public:
  explicit Lion(std::vector<Tensor> params, LionOptions = {});
  explicit Lion(NamedParameters params, LionOptions = {});
  explicit Lion(std::vector<ParamGroup> groups, LionOptions = {});

 private:
  void rule(const ParamGroup&, std::int64_t, kernels::Update&) const override;
  LionOptions options_;
};

struct AdafactorOptions {
  double lr = 1e-2;
  double beta2_decay = -0.8;        ///< the second moment's decay of step t is 1 - t^beta2_decay
  std::optional<double> eps1 = {};  ///< its square is the least second moment; unset: the epsilon of f32 (f64 for f64)
  double eps2 = 1e-3;               ///< the least size that a parameter counts with
  double d = 1;                     ///< the root mean square that a step is clipped to, before the learning rate
  double weight_decay = 0;
  Storage storage = Storage::f32;
  Dtype low = Dtype::bf16;
  CopyRounding copy_rounding = CopyRounding::nearest_even;
};
/// Adafactor (Shazeer & Stern, arXiv 1804.04235), torch.optim.Adafactor's variant: steps relative to the size of the parameter, no first moment, and
/// a second moment that of a matrix (R, C) is R + C numbers, always f32. Of more than two dims the last two are factored.
class MEZZO_API Adafactor : public Optimizer {
 public:
  explicit Adafactor(std::vector<Tensor> params, AdafactorOptions = {});
  explicit Adafactor(NamedParameters params, AdafactorOptions = {});
  explicit Adafactor(std::vector<ParamGroup> groups, AdafactorOptions = {});

 private:
  void rule(const ParamGroup&, std::int64_t, kernels::Update&) const override;
  void measure(const ParamGroup&, std::int64_t, kernels::Update&) const override;
  AdafactorOptions options_;
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
