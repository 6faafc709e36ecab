// amp.h - automatic mixed precision: autocast regions and the gradient scaler.
#pragma once

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
  bool cache = true;                  ///< keep the 16-bit copies of parameters between uses
  std::optional<Policy> policy = {};  ///< unset: the enclosing region's, or mezzo() at the outermost
};

/// Inside its scope ops run in the precision their class says. Per thread; nests; restores on unwind.
/// Regions end in the reverse order of their beginning, on the thread that began them.
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
template <class F>
requires std::is_invocable_v<F>
decltype(auto) autocast(Dtype dtype, F&& fn) {
  const Autocast region(dtype);
  return std::forward<F>(fn)();
}
template <class F>
requires std::is_invocable_v<F>
decltype(auto) autocast(Dtype dtype, AutocastOptions options, F&& fn) {
  const Autocast region(dtype, std::move(options));
  return std::forward<F>(fn)();
}
/// Whether this thread is in an enabled region.
MEZZO_API bool autocast_enabled();
/// The innermost region's dtype; bf16 outside.
MEZZO_API Dtype autocast_dtype();

/// Defaults: torch's. Error from the constructor for a value outside its range, which is named.
struct GradScalerOptions {
  double init_scale = 65536;                  ///< > 0
  double growth_factor = 2;                   ///< > 1
  double backoff_factor = 0.5;                ///< in (0, 1)
  int growth_interval = 2000;                 ///< clean iterations in a row before the scale grows
  bool enabled = true;                        ///< false: scale() returns its input, step() steps
  double min_scale = 0, max_scale = 0x1p127;  ///< a scale beyond a limit becomes that limit; it never falls below 2^-149, the least f32 above 0
  int hysteresis = 1;                         ///< since the last growth, the first hysteresis - 1 overflows skip without backing off
  int max_consecutive_skips = 0;              ///< the step that would make an iteration the N-th in a row to skip throws; 0: never
  bool dynamic = true;                        ///< false: the scale is a constant; overflows still skip
};

/// All that a scaler knows, to be put in a checkpoint. Of a disabled scaler: scale 0.
struct GradScalerState {
  double scale = 0, growth_factor = 0, backoff_factor = 0;
  int growth_interval = 0;
  int growth_tracker = 0;      ///< clean iterations since the scale last grew or backed off
  int hysteresis_tracker = 0;  ///< overflows until it backs off: from hysteresis down; a growth refills it
  int consecutive_skips = 0;   ///< iterations in a row in which an optimizer skipped
  double min_scale = 0, max_scale = 0x1p127;
  int hysteresis = 1, max_consecutive_skips = 0;
  bool dynamic = true;
  friend bool operator==(const GradScalerState&, const GradScalerState&) = default;
};

struct StepOptions {
  double clip_norm = 0;  ///< > 0: gradients are scaled down so that their total norm (unscaled) is at most this, by torch's factor
  bool measure = false;  ///< look at the gradients, and skip over Inf and NaN, even where a disabled scaler would not
  /// Gradients are multiplied by this as they are unscaled, before the norm is taken: what undoes a constant that the loss was divided by
  /// (a share of a larger batch), so that clipping and eps see gradients of the usual size.
  double multiplier = 1;
};

/// What a step did. A step that is scaled, clips or measures looks at every gradient once; one that does none of it is applied blindly, and says
/// nothing about the gradients.
struct StepResult {
  bool applied = false;  ///< false: parameters, moments and step count are as before
  bool found_inf = false, found_nan = false;
  double scale = 1;          ///< that the loss was multiplied by
  double grad_norm = 0;      ///< of all gradients, unscaled, before clipping; Inf or NaN with the elements
  std::string culprit = {};  ///< the first parameter whose gradient held Inf or NaN: its name, or "param[i]"
  double zero_fraction = 0;  ///< share of gradient elements that are 0: what the format lost, where the mathematics has none
};

/// Dynamic loss scaling (Mixed Precision Training, arXiv 1710.03740, section 3.2; torch.amp.GradScaler's state machine).
/// An iteration: scale(loss).backward(), step() of each optimizer (unscale() before it to look at or change gradients), update() once.
/// Several optimizers and losses may share a scaler: each skips by itself, an overflow in any backs the scale off.
/// With accumulation the scale must not change between the backwards of one step: update() after it.
/// A call out of order is an Error that leaves scaler, optimizer and parameters as they were.
class MEZZO_API GradScaler {
 public:
  explicit GradScaler(GradScalerOptions = {});
  ~GradScaler();
  GradScaler(GradScaler&&) noexcept;
  GradScaler& operator=(GradScaler&&) noexcept;

  /// outputs * scale, computed in f32 (f64 stays f64); differentiable, to any order.
  Tensor scale(const Tensor&);
  std::vector<Tensor> scale(const std::vector<Tensor>&);
  /// Divides every .grad of the optimizer by the scale: in place, strided views included; but an f16 gradient becomes an f32 one, or what scaling
  /// saved would be lost again. Error: a second time between updates, after step(), before the first scale().
  void unscale(optim::Optimizer&);
  /// Steps the optimizer unless a gradient, scaled or unscaled, holds Inf or NaN (or held one at unscale()). Without unscale() before it .grad is
  /// unspecified afterwards. No gradients at all: applied, and nothing changes. Error: a second time between updates, before the first scale(),
  /// too many skips in a row.
  StepResult step(optim::Optimizer&, StepOptions = {});
  /// A closure would run forward and backward inside step(), where no Inf could be seen: always an Error.
  template <class F>
  requires std::is_invocable_v<F&> StepResult step(optim::Optimizer&, F&&) { refuse_closure(); }
  /// Ends the iteration: backs off, grows or keeps the scale. Error: without a step() or unscale() before it.
  void update();
  /// Ends the iteration with a scale of your own, moved inside the limits; growth_tracker stays. Error unless new_scale > 0.
  void update(double new_scale);

  double get_scale() const;  ///< 1 when disabled
  bool is_enabled() const;
  GradScalerState state() const;  ///< Error between step() (or unscale()) and update()
  /// At any time but between step() and update(), before the first use too. A disabled scaler ignores it. Error: a value outside its range, a
  /// disabled scaler's state.
  void load_state(const GradScalerState&);

 private:
  [[noreturn]] static void refuse_closure();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mezzo::amp
