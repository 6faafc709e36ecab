// amp.h - automatic mixed precision: autocast regions and the gradient scaler.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <mezzo/optim.h>
#include <mezzo/policy.h>
#include <mezzo/tensor.h>

namespace mezzo::amp {

struct AutocastOptions {
  bool enabled = true;
  bool cache = true;                     ///< keep the 16-bit copies of parameters between uses
  std::optional<Policy> policy = {};     ///< unset: the enclosing region's, or mezzo() at the outermost
};

/// Inside its scope ops run in the precision their class says. Per thread; nests; restores on unwind.
/// Error for a dtype other than f16 or bf16, unless enabled is false.
class MEZZO_API Autocast {
 public:
  [[nodiscard]] explicit Autocast(Dtype, AutocastOptions = {});
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  struct Before;
  std::unique_ptr<Before> before_;
};

/// fn() inside an Autocast; its result.
template <class F> requires std::is_invocable_v<F> decltype(auto) autocast(Dtype dtype, F&& fn) {
  const Autocast region(dtype);
  return std::forward<F>(fn)();
}
template <class F> requires std::is_invocable_v<F> decltype(auto) autocast(Dtype dtype, AutocastOptions options, F&& fn) {
  const Autocast region(dtype, std::move(options));
  return std::forward<F>(fn)();
}
MEZZO_API bool autocast_enabled();
MEZZO_API Dtype autocast_dtype();

struct GradScalerOptions {
  double init_scale = 65536, growth_factor = 2, backoff_factor = 0.5;
  int growth_interval = 2000;     ///< clean iterations in a row before the scale grows
  bool enabled = true;            ///< false: scale() returns its input, step() steps
  double min_scale = 0, max_scale = 0x1p127;
  int hysteresis = 1;             ///< overflows since the last growth before the scale backs off
  int max_consecutive_skips = 0;  ///< the iteration that would be this many skips in a row throws; 0: never
};

struct GradScalerState {
  double scale = 0, growth_factor = 0, backoff_factor = 0;
  int growth_interval = 0, growth_tracker = 0, hysteresis_tracker = 0, consecutive_skips = 0;
  double min_scale = 0, max_scale = 0;
  int hysteresis = 0, max_consecutive_skips = 0;
  friend bool operator==(const GradScalerState&, const GradScalerState&) = default;
};

struct StepOptions {
  double clip_norm = 0;  ///< > 0: gradients are scaled down so that their total norm (unscaled) is at most this
};

/// What a step did. grad_norm: unscaled, before clipping. culprit: the first parameter whose gradient held Inf or NaN: its name, or "param[i]".
struct StepResult {
  bool applied = false, found_inf = false, found_nan = false;
  double scale = 1, grad_norm = 0;
  std::string culprit;
};

/// Dynamic loss scaling (Mixed Precision Training, arXiv 1710.03740, section 3.2; torch.amp.GradScaler's state machine).
/// An iteration: scale(loss).backward(), step() of each optimizer (unscale() before it to look at or clip gradients), update() once.
class MEZZO_API GradScaler {
 public:
  explicit GradScaler(GradScalerOptions = {});
  ~GradScaler();
  GradScaler(GradScaler&&) noexcept;
  GradScaler& operator=(GradScaler&&) noexcept;

  /// outputs * scale, computed in f32 (f64 stays f64).
  Tensor scale(const Tensor&);
  std::vector<Tensor> scale(const std::vector<Tensor>&);
  /// Divides every .grad of the optimizer by the scale, in place. Error: a second time between updates, after step(), before scale().
  void unscale(optim::Optimizer&);
  /// Steps the optimizer unless a gradient holds Inf or NaN. Error: a second time between updates, before scale().
  StepResult step(optim::Optimizer&, StepOptions = {});
  /// A closure would run forward and backward inside step(), where no Inf could be seen: always an Error.
  StepResult step(optim::Optimizer&, const std::function<Tensor()>& closure);
  /// Ends the iteration: backs off, grows or keeps the scale. Error: without a step() or unscale() before it.
  void update();
  /// Ends the iteration with a scale of your own (clamped to the limits).
  void update(double new_scale);

  double get_scale() const;   ///< 1 when disabled
  bool is_enabled() const;
  GradScalerState state() const;                 ///< Error between step() and update()
  void load_state(const GradScalerState&);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mezzo::amp
