// step.cpp - the training step: micro-batches, scaled backward, one check, one update, or nothing.
//
// Where the loss is a mean over a larger batch than the step runs (loss_divisor K), the gradients that flow are K times smaller: that is
// what a 16-bit format must bear. Reading them, the optimizer multiplies by K again (amp::StepOptions::multiplier), so the norm that is
// reported, clipping and AdamW's eps see the mean over the tokens that were run, and K is no change at all in exact arithmetic.
#include <algorithm>
#include <cmath>

#include <mezzo/ops.h>
#include <mezzo/train.h>

#include "core/fail.h"
#include "kernels/work_log.h"
#include "tensor/buffers.h"
#include "tensor/impl.h"
#include "train/fused_update.h"

namespace mezzo::train {
namespace {

constexpr const char* kOp = "train::Step";

std::string storage_name(optim::Storage s) { return fmt::format("Storage::{}", optim::name(s)); }

double width_of(const optim::Optimizer& optimizer) {
  std::vector<Tensor> all;
  for (const auto& group : optimizer.groups()) all.insert(all.end(), group.params.begin(), group.params.end());
  return matrix_width(all);
}

void check(const optim::Optimizer& optimizer, const StepOptions& o, const Recipe& r) {
  if (o.accumulate < 1) fail(kOp, fmt::format("accumulate = {} given, 1 or more wanted", o.accumulate));
  if (!(o.clip_norm >= 0)) fail(kOp, fmt::format("clip_norm = {} given, 0 (no clipping) or more wanted", o.clip_norm));
  if (!(o.loss_divisor > 0 && std::isfinite(o.loss_divisor)))
    fail(kOp, fmt::format("loss_divisor = {} given, a finite number above 0 wanted", o.loss_divisor));
  if (optimizer.storage() != r.storage)
    fail(kOp, fmt::format("an optimizer with {} given, {} wanted for recipe {}", storage_name(optimizer.storage()), storage_name(r.storage), r.name),
         fmt::format("build it with .storage = {}", storage_name(r.storage)));
  if (r.storage != optim::Storage::f32 && optimizer.low() != r.low)
    fail(kOp, fmt::format("an optimizer with {} weights given, {} wanted for recipe {}", name(optimizer.low()), name(r.low), r.name),
         fmt::format("build it with .low = {}", name(r.low)));
}

}  // namespace

struct Step::Impl {
  optim::Optimizer& optimizer;
  StepOptions options;
  PrecisionPlan plan;
  amp::GradScaler scaler;
  std::optional<FusedUpdate> fused;
  bool counts_rows = false;  // in the first forward: nobody said how many there are, and "auto" hangs on it

  Impl(optim::Optimizer& opt, StepOptions o)
      : optimizer(opt), options(std::move(o)), plan(resolve({.precision = options.recipe, .width = width_of(opt), .rows = options.rows})) {
    check(optimizer, options, plan.recipe);
    if (options.scaler) plan.scaler = options.scaler->enabled ? options.scaler : std::nullopt;
    scaler = amp::GradScaler(plan.scaler.value_or(amp::GradScalerOptions{.enabled = false}));
    if (options.fuse_optimizer) {
      check_fusing();
      fused.emplace(optimizer);
    }
    counts_rows = options.recipe == "auto" && options.rows == 0;
    // Contributions of several micro-batches to a 16-bit weight are summed in f32 and rounded once.
    if (options.accumulate > 1)
      for (const auto& group : optimizer.groups())
        for (const auto& w : group.params)
          if (is_16bit(w.dtype())) w.impl()->more().grad_in_f32 = true;
  }

  void check_fusing() const {
    const auto refuse = [](const std::string& given, const char* why) {
      fail(kOp, fmt::format(".fuse_optimizer given with {}: {}", given, why),
           "gradients that must all be there before the first update cannot be used up");
    };
    if (options.clip_norm > 0) refuse(fmt::format(".clip_norm = {}", options.clip_norm), "the norm is known when backward has ended");
    if (scaler.is_enabled()) refuse("loss scaling", "one overflow, found last, must prevent the whole step");
    if (options.accumulate > 1) refuse(fmt::format(".accumulate = {}", options.accumulate), "a gradient is complete after the last micro-batch");
  }

  /// "auto" with the rows of the forward's largest product, from the next micro-batch on. The storage is f32 either way.
  void decide_anew(const kernels::WorkLog& log) {
    counts_rows = false;
    const auto& products = log.products();
    const auto largest = std::max_element(products.begin(), products.end(), [](const auto& a, const auto& b) { return a.n * a.k < b.n * b.k; });
    if (largest == products.end()) return;
    options.rows = static_cast<double>(largest->m);
    const auto scaling = plan.scaler;
    plan = resolve({.precision = options.recipe, .width = width_of(optimizer), .rows = options.rows});
    plan.scaler = scaling;
  }

  /// One micro-batch: forward, and what `backward` makes of the loss's share of the step; the loss.
  template <class Backward>
  double run(const std::function<Tensor(int)>& loss_of, int micro, const std::optional<amp::Policy>& policy, const Backward& backward) {
    Tensor loss;
    {
      std::optional<kernels::WorkLog> log;
      if (counts_rows && !kernels::WorkLog::current()) log.emplace();
      const amp::Autocast region(plan.recipe.low, {.enabled = plan.recipe.autocast, .policy = policy ? policy : options.policy});
      loss = loss_of(micro);
      if (log) decide_anew(*log);
    }
    if (!loss.defined() || loss.numel() != 1)
      fail(kOp, fmt::format("the loss function returned {}, one number wanted",
                            loss.defined() ? "shape " + to_string(loss.shape()) : "an undefined tensor"));
    if (!loss.requires_grad())
      fail(kOp, "the loss that was returned depends on no parameter", "was it computed under NoGrad, or from detached tensors?");
    const double share = 1 / (options.accumulate * options.loss_divisor);
    if (loss.dtype() != Dtype::f64) loss = loss.to(Dtype::f32);
    backward(share == 1 ? loss : mul(loss, share));
    return loss.item();
  }
};

Step::Step(optim::Optimizer& optimizer, StepOptions options) : impl_(std::make_unique<Impl>(optimizer, std::move(options))) {}
Step::~Step() = default;
Step::Step(Step&&) noexcept = default;
amp::GradScaler& Step::scaler() { return impl_->scaler; }
const amp::GradScaler& Step::scaler() const { return impl_->scaler; }
const PrecisionPlan& Step::plan() const { return impl_->plan; }

StepReport Step::operator()(const std::function<Tensor(int micro)>& loss, const std::function<void()>& before_update) {
  if (!loss) fail(kOp, "an empty loss function given", "it takes the number of the micro-batch and returns its loss");
  auto& s = *impl_;
  const auto& o = s.options;
  StepReport report;
  s.optimizer.zero_grad();  // what a step that threw has left, or the caller
  BufferScope buffers;      // running statistics: part of the step that is applied, or is not
  if (s.fused) {
    if (before_update) fail(kOp, "before_update given to a step with .fuse_optimizer: gradients are never all there", "leave one of them out");
    report.loss = s.run(loss, 0, {}, [&](const Tensor& l) { report.result = s.fused->backward(l, o.loss_divisor); });
    buffers.keep();
    return report;
  }
  for (int micro = 0; micro < o.accumulate; ++micro) report.loss += s.run(loss, micro, {}, [&](const Tensor& l) { s.scaler.scale(l).backward(); });
  report.loss /= o.accumulate;
  if (before_update) before_update();
  report.result = s.scaler.step(s.optimizer, {.clip_norm = o.clip_norm, .measure = true, .multiplier = o.loss_divisor});
  if (report.applied()) buffers.keep();
  s.scaler.update();
  s.optimizer.zero_grad();  // their memory serves what comes next
  return report;
}

void Step::rehearse(const std::function<Tensor(int micro)>& loss, double scale, const std::optional<amp::Policy>& policy) {
  auto& s = *impl_;
  s.optimizer.zero_grad();
  const BufferScope buffers;
  for (int micro = 0; micro < s.options.accumulate; ++micro)
    s.run(loss, micro, policy, [&](const Tensor& l) { (scale == 1 ? l : mul(l, scale)).backward(); });
  s.optimizer.zero_grad();
}

}  // namespace mezzo::train
