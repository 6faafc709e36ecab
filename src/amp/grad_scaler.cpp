// grad_scaler.cpp - the scale, and the state machine of an iteration.
#include <algorithm>
#include <cmath>

#include <mezzo/amp.h>

#include "autograd/node.h"
#include "core/fail.h"
#include "kernels/kernels.h"
#include "optim/gradients.h"
#include "tensor/layout.h"

namespace mezzo::amp {
namespace {

constexpr const char* kOp = "GradScaler";
constexpr double kLeastScale = 0x1p-149;

// x * s with one rounding; its derivative is the same function.
Tensor scaled(const Tensor& x, double s) {
  const Operand operand = mezzo::operand(x, x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
  const Dtype dtype = operand.value.dtype();
  const Tensor out = make_tensor(x.shape(), dtype);
  const bool flat = operand.value.is_contiguous();
  if (!flat) copy_elements(out, operand.value);
  kernels::binary_scalar(kernels::cpu_queue(), kernels::Binary::mul, dtype, data(flat ? operand.value : out), s, false, mutable_data(out),
                         out.numel());
  return autograd::record(OpId::scale, out, {operand}, {}, [s](autograd::Backward& b) { b.set(0, scaled(b.dy(), s)); });
}

void require(bool ok, const char* what, double given, const char* wanted) {
  if (!ok) fail(kOp, fmt::format("{} = {} given, {} wanted", what, given, wanted), "what is left out of the options has torch's default");
}

/// Of options and of states: they share these names.
template <class T> void check_settings(const T& s) {
  require(s.growth_factor > 1 && std::isfinite(s.growth_factor), "growth_factor", s.growth_factor, "a finite number above 1");
  require(s.backoff_factor > 0 && s.backoff_factor < 1, "backoff_factor", s.backoff_factor, "a number between 0 and 1");
  require(s.growth_interval >= 1, "growth_interval", s.growth_interval, "1 or more (for a constant scale .dynamic = false)");
  require(s.min_scale >= 0 && std::isfinite(s.min_scale), "min_scale", s.min_scale, "a finite number of 0 or more");
  require(s.max_scale >= s.min_scale && s.max_scale > 0 && s.max_scale <= format_info(Dtype::f32).max, "max_scale", s.max_scale,
          "a number that f32 holds, not below min_scale,");
  require(s.hysteresis >= 1, "hysteresis", s.hysteresis, "1 or more");
  require(s.max_consecutive_skips >= 0, "max_consecutive_skips", s.max_consecutive_skips, "0 or more");
}

const char* kind_of(const StepResult& r) { return r.found_inf && r.found_nan ? "Inf and NaN" : r.found_nan ? "NaN" : "Inf"; }

}  // namespace

/// Where an optimizer stands between two updates; one without a record is ready.
struct GradScaler::Impl {
  enum class Stage : std::uint8_t { unscaled, stepped };
  struct Record {
    std::uint64_t optimizer;
    Stage stage;
    bool inf, nan;
    std::string culprit;
  };

  bool enabled = true;
  GradScalerState state;  // scale: what an f32 holds
  bool used = false;      // scale() was called once
  std::vector<Record> records;

  Record* find(const optim::Optimizer& o) {
    const auto it = std::find_if(records.begin(), records.end(), [&](const Record& r) { return r.optimizer == o.id(); });
    return it == records.end() ? nullptr : &*it;
  }

  void set_scale(double s) {
    const auto rounded = static_cast<float>(std::clamp(s, state.min_scale, state.max_scale));
    state.scale = std::max(static_cast<double>(rounded), kLeastScale);
  }

  void require_used(const char* call) const {
    if (!used)
      fail(kOp, fmt::format("{} given before any scale()", call), "an iteration is scale(loss).backward(), then step(optimizer), then update()");
  }

  /// What the gradients hold, read with `scaling`, and who holds it first; adds to r.
  void look(const optim::Optimizer& optimizer, const optim::StepScaling& scaling, StepResult& r) const {
    const optim::GradientTotals totals = optim::measure_gradients(optimizer.groups(), scaling);
    r.grad_norm = totals.norm;
    r.zero_fraction = totals.elements > 0 ? static_cast<double>(totals.zero) / static_cast<double>(totals.elements) : 0;
    r.found_inf = r.found_inf || totals.inf > 0;
    r.found_nan = r.found_nan || totals.nan > 0;
    if (!totals.finite() && r.culprit.empty()) r.culprit = optimizer.named_parameters()[static_cast<std::size_t>(totals.culprit)].first;
  }

  void end_iteration(bool found) {
    if (!records.empty()) state.consecutive_skips = found ? state.consecutive_skips + 1 : 0;
    records.clear();
  }
  bool any_found() const {
    return std::any_of(records.begin(), records.end(), [](const Record& r) { return r.inf || r.nan; });
  }
};

GradScaler::GradScaler(GradScalerOptions o) : impl_(std::make_unique<Impl>()) {
  require(o.init_scale > 0 && std::isfinite(o.init_scale), "init_scale", o.init_scale, "a finite number above 0");
  check_settings(o);
  impl_->enabled = o.enabled;
  if (!o.enabled) return;
  impl_->state = {.growth_factor = o.growth_factor,
                  .backoff_factor = o.backoff_factor,
                  .growth_interval = o.growth_interval,
                  .hysteresis_tracker = o.hysteresis,
                  .min_scale = o.min_scale,
                  .max_scale = o.max_scale,
                  .hysteresis = o.hysteresis,
                  .max_consecutive_skips = o.max_consecutive_skips,
                  .dynamic = o.dynamic};
  impl_->set_scale(o.init_scale);
}
GradScaler::~GradScaler() = default;
GradScaler::GradScaler(GradScaler&&) noexcept = default;
GradScaler& GradScaler::operator=(GradScaler&&) noexcept = default;

double GradScaler::get_scale() const { return is_enabled() ? impl_->state.scale : 1; }
bool GradScaler::is_enabled() const { return impl_->enabled; }

std::vector<Tensor> GradScaler::scale(const std::vector<Tensor>& outputs) {
  for (const auto& x : outputs) {
    require_defined(kOp, x, "the output to scale");
    if (is_enabled() && !is_floating(x.dtype()))
      fail(kOp, fmt::format("an output of {} given to scale(), a floating one wanted", name(x.dtype())),
           "scale the loss that backward() starts from");
  }
  if (!is_enabled()) return outputs;
  impl_->used = impl_->used || !outputs.empty();
  std::vector<Tensor> out;
  out.reserve(outputs.size());
  for (const auto& x : outputs) out.push_back(scaled(x, get_scale()));
  return out;
}
Tensor GradScaler::scale(const Tensor& x) { return std::move(scale(std::vector{x})[0]); }

void GradScaler::unscale(optim::Optimizer& optimizer) {
  if (!is_enabled()) return;
  impl_->require_used("unscale()");
  if (const auto* r = impl_->find(optimizer)) {
    if (r->stage == Impl::Stage::stepped)
      fail(kOp, "unscale() given after step() of the same optimizer", "call it between backward() and step(); update() begins the next iteration");
    fail(kOp, "unscale() given a second time for this optimizer since the last update()",
         "its gradients are unscaled already; with accumulation, unscale once, after the last backward");
  }
  const double inverse = 1 / get_scale();
  StepResult found;
  impl_->look(optimizer, {.g_scale = inverse}, found);
  impl_->records.push_back({optimizer.id(), Impl::Stage::unscaled, found.found_inf, found.found_nan, found.culprit});
  for (const auto& group : optimizer.groups())
    for (const auto& w : group.params)
      if (w.grad().defined()) optim::unscale_gradient(w, inverse);
}

StepResult GradScaler::step(optim::Optimizer& optimizer, StepOptions options) {
  auto& s = *impl_;
  if (!(options.clip_norm >= 0))
    fail(kOp, fmt::format("clip_norm = {} given, 0 (no clipping) or more wanted", options.clip_norm),
         "it is the largest total norm of the unscaled gradients");
  if (!(options.multiplier > 0 && std::isfinite(options.multiplier)))
    fail(kOp, fmt::format("multiplier = {} given, a finite number above 0 wanted", options.multiplier), "1 leaves gradients as they are");
  const bool enabled = is_enabled();
  auto* record = s.find(optimizer);
  if (enabled) {
    s.require_used("step()");
    if (record && record->stage == Impl::Stage::stepped)
      fail(kOp, "step() given a second time for this optimizer since the last update()",
           "call update() once at the end of each iteration, after the step() of every optimizer");
  }

  StepResult result{.scale = get_scale()};
  optim::StepScaling scaling{.g_scale = options.multiplier / (record ? 1 : result.scale), .unscaled = record != nullptr};
  if (record) {
    result.found_inf = record->inf;
    result.found_nan = record->nan;
    result.culprit = record->culprit;
  }
  if (enabled || options.clip_norm > 0 || options.measure) s.look(optimizer, scaling, result);
  if (options.clip_norm > 0 && std::isinf(result.grad_norm)) result.found_inf = true;  // of f64 elements, each finite: no factor clips them
  const bool found = result.found_inf || result.found_nan;
  result.applied = !found;
  if (result.applied) {
    if (options.clip_norm > 0) scaling.g_scale *= optim::clip_factor(result.grad_norm, options.clip_norm);
    optimizer.step(scaling);
  }
  if (!enabled) return result;

  if (!record) record = &s.records.emplace_back(Impl::Record{optimizer.id(), {}, {}, {}, {}});
  *record = {optimizer.id(), Impl::Stage::stepped, result.found_inf, result.found_nan, result.culprit};
  if (const int limit = s.state.max_consecutive_skips; found && limit > 0 && s.state.consecutive_skips + 1 >= limit)
    fail(kOp,
         fmt::format("iteration {} in a row skips its step: the gradient of `{}` holds {} at loss scale {}; fewer than {} in a row wanted",
                     s.state.consecutive_skips + 1, result.culprit, kind_of(result), result.scale, limit),
         result.found_nan ? "a NaN does not go away with a smaller scale: look at the data, the learning rate and the ops before that parameter"
                          : "a lower init_scale needs fewer skips at the start; if the scale keeps falling the gradients themselves overflow: lower "
                            "the learning rate or clip");
  return result;
}

void GradScaler::refuse_closure() {
  fail(kOp, "a closure given to step(): it would run forward and backward where no Inf could be seen",
       "run scale(loss).backward() first, then step(optimizer)");
}

void GradScaler::update() {
  auto& s = *impl_;
  if (!is_enabled()) return;
  s.require_used("update()");
  if (s.records.empty())
    fail(kOp, "update() given, but no gradient was checked since the last one",
         "call step(optimizer) before it, or leave update() out while accumulating");
  const bool found = s.any_found();
  s.end_iteration(found);
  auto& t = s.state;
  if (found) {
    t.growth_tracker = 0;
    t.hysteresis_tracker = std::max(t.hysteresis_tracker - 1, 0);
    if (t.dynamic && t.hysteresis_tracker == 0) s.set_scale(t.scale * t.backoff_factor);
  } else if (t.dynamic && ++t.growth_tracker >= t.growth_interval) {
    t.growth_tracker = 0;
    t.hysteresis_tracker = t.hysteresis;
    if (const double grown = t.scale * t.growth_factor; std::isfinite(static_cast<float>(grown))) s.set_scale(grown);
  }
}

void GradScaler::update(double new_scale) {
  auto& s = *impl_;
  if (!is_enabled()) return;
  s.require_used("update()");
  if (!(new_scale > 0))
    fail(kOp, fmt::format("new_scale = {} given, a number above 0 wanted", new_scale), "update() without a number moves the scale by its rule");
  s.end_iteration(s.any_found());
  s.set_scale(new_scale);
}

GradScalerState GradScaler::state() const {
  if (!impl_->records.empty())
    fail(kOp, "state() given between step() and update(): the iteration's outcome is not in the scale yet",
         "take it at the start of an iteration, or after update()");
  return impl_->state;
}

void GradScaler::load_state(const GradScalerState& given) {
  auto& s = *impl_;
  if (!is_enabled()) return;
  if (!s.records.empty()) fail(kOp, "load_state() given between step() and update()", "end the iteration with update() first");
  if (given.scale == 0 && given.growth_factor == 0)
    fail(kOp, "an empty state given", "it may come from a disabled scaler: save the state of an enabled one");
  require(given.scale > 0 && std::isfinite(given.scale), "scale", given.scale, "a finite number above 0");
  check_settings(given);
  require(given.growth_tracker >= 0, "growth_tracker", given.growth_tracker, "0 or more");
  require(given.hysteresis_tracker >= 0 && given.hysteresis_tracker <= given.hysteresis, "hysteresis_tracker", given.hysteresis_tracker,
          "a number from 0 to hysteresis");
  require(given.consecutive_skips >= 0, "consecutive_skips", given.consecutive_skips, "0 or more");
  s.state = given;
  s.set_scale(given.scale);
}

}  // namespace mezzo::amp
