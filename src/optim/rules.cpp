// rules.cpp - the optimizers' options, and the numbers that a kernel pass needs from them.
#include <algorithm>
#include <cmath>

#include <mezzo/optim.h>

#include "core/fail.h"
#include "core/log.h"
#include "kernels/kernels.h"

namespace mezzo::optim {
namespace {

void require(const char* op, bool ok, const char* what, double given, const char* wanted) {
  if (!ok) fail(op, fmt::format("{} = {} given, {} wanted", what, given, wanted));
}
bool at_least_0(double x) { return x >= 0 && std::isfinite(x); }

std::vector<ParamGroup> one_group(std::vector<Tensor> params) { return {{.params = std::move(params)}}; }

// NOLINTNEXTLINE(performance-unnecessary-value-param): its tensors are moved out of it
std::vector<ParamGroup> one_group(NamedParameters named) {
  ParamGroup group;
  for (auto& [name, t] : named) {
    if (t.defined() && t.name().empty()) t.set_name(name);
    group.params.push_back(std::move(t));
  }
  return {std::move(group)};
}

/// Negative numbers are the options'.
std::vector<ParamGroup> resolved(std::vector<ParamGroup> groups, double lr, double weight_decay) {
  for (auto& g : groups) {
    if (g.lr < 0) g.lr = lr;
    if (g.weight_decay < 0) g.weight_decay = weight_decay;
  }
  return groups;
}

/// `eps` as the arithmetic will see it, f32 whatever the weights are stored in (f64 for f64).
void check_eps(const char* op, double eps) {
  require(op, at_least_0(eps), "eps", eps, "a finite number of 0 or more");
  if (eps > 0 && static_cast<float>(eps) == 0)
    log_once(LogLevel::warning, "eps that is zero in f32", fmt::format("{}: eps = {} is zero in f32, in which weights are updated", op, eps));
}

AdamOptions as_adam(const AdamWOptions& o) {
  return {.lr = o.lr,
          .betas = o.betas,
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .storage = o.storage,
          .low = o.low,
          .state_dtype = o.state_dtype,
          .state_rounding = o.state_rounding,
          .copy_rounding = o.copy_rounding};
}

const SgdOptions& checked(const SgdOptions& o) {
  require("Sgd", at_least_0(o.lr), "lr", o.lr, "a finite number of 0 or more");
  require("Sgd", at_least_0(o.momentum), "momentum", o.momentum, "a finite number of 0 or more");
  require("Sgd", at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  if (o.nesterov && o.momentum == 0) fail("Sgd", "nesterov given without momentum, .momentum > 0 wanted");
  return o;
}

const AdamOptions& checked(const char* op, const AdamOptions& o) {
  require(op, at_least_0(o.lr), "lr", o.lr, "a finite number of 0 or more");
  for (const double beta : o.betas) require(op, beta >= 0 && beta < 1, "a beta", beta, "a number in [0, 1)");
  check_eps(op, o.eps);
  require(op, at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  return o;
}

const AdagradOptions& checked(const AdagradOptions& o) {
  require("Adagrad", at_least_0(o.lr), "lr", o.lr, "a finite number of 0 or more");
  require("Adagrad", at_least_0(o.lr_decay), "lr_decay", o.lr_decay, "a finite number of 0 or more");
  check_eps("Adagrad", o.eps);
  require("Adagrad", at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  require("Adagrad", at_least_0(o.initial_accumulator_value), "initial_accumulator_value", o.initial_accumulator_value,
          "a finite number of 0 or more");
  return o;
}

const LionOptions& checked(const LionOptions& o) {
  require("Lion", at_least_0(o.lr), "lr", o.lr, "a finite number of 0 or more");
  for (const double beta : o.betas) require("Lion", beta >= 0 && beta < 1, "a beta", beta, "a number in [0, 1)");
  require("Lion", at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  return o;
}

const AdafactorOptions& checked(const AdafactorOptions& o) {
  require("Adafactor", at_least_0(o.lr), "lr", o.lr, "a finite number of 0 or more");
  require("Adafactor", o.beta2_decay <= 0 && std::isfinite(o.beta2_decay), "beta2_decay", o.beta2_decay, "a finite number of 0 or less");
  if (o.eps1) require("Adafactor", at_least_0(*o.eps1), "eps1", *o.eps1, "a finite number of 0 or more");
  require("Adafactor", at_least_0(o.eps2), "eps2", o.eps2, "a finite number of 0 or more");
  require("Adafactor", o.d >= 1 && std::isfinite(o.d), "d", o.d, "a finite number of 1 or more");
  require("Adafactor", at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  return o;
}

}  // namespace

// ---- SGD -----------------------------------------------------------------------------------------

Sgd::Sgd(std::vector<Tensor> params, SgdOptions o) : Sgd(one_group(std::move(params)), o) {}
Sgd::Sgd(NamedParameters params, SgdOptions o) : Sgd(one_group(std::move(params)), o) {}
Sgd::Sgd(std::vector<ParamGroup> groups, SgdOptions o)
    : Optimizer(resolved(std::move(groups), checked(o).lr, o.weight_decay),
                {.name = "Sgd",
                 .moments = o.momentum > 0 ? std::vector{"momentum"} : std::vector<const char*>{},
                 .storage = o.storage,
                 .low = o.low,
                 .rounding = o.copy_rounding,
                 .state_dtype = o.state_dtype,
                 .state_rounding = o.state_rounding,
                 .slowest_decay = o.momentum}),
      options_(o) {}

void Sgd::rule(const ParamGroup& group, std::int64_t, kernels::Update& u) const {
  u.rule = kernels::Rule::sgd;
  u.lr = group.lr;
  u.weight_decay = group.weight_decay;
  u.momentum = options_.momentum;
  u.nesterov = options_.nesterov;
}

// ---- Adam, AdamW ---------------------------------------------------------------------------------

Adam::Adam(std::vector<Tensor> params, AdamOptions o) : Adam(one_group(std::move(params)), o) {}
Adam::Adam(NamedParameters params, AdamOptions o) : Adam(one_group(std::move(params)), o) {}
Adam::Adam(std::vector<ParamGroup> groups, AdamOptions o) : Adam(std::move(groups), "Adam", o, false) {}
Adam::Adam(std::vector<ParamGroup> groups, const char* name, const AdamOptions& o, bool decoupled)
    : Optimizer(resolved(std::move(groups), checked(name, o).lr, o.weight_decay), {.name = name,
                                                                                   .moments = {"exp_avg", "exp_avg_sq"},
                                                                                   .storage = o.storage,
                                                                                   .low = o.low,
                                                                                   .rounding = o.copy_rounding,
                                                                                   .state_dtype = o.state_dtype,
                                                                                   .state_rounding = o.state_rounding,
                                                                                   .slowest_decay = std::max(o.betas[0], o.betas[1])}),
      options_(o),
      decoupled_(decoupled) {}

void Adam::rule(const ParamGroup& group, std::int64_t step, kernels::Update& u) const {
  u.rule = kernels::Rule::adam;
  u.lr = group.lr;
  u.weight_decay = group.weight_decay;
  u.decoupled = decoupled_;
  u.beta1 = options_.betas[0];
  u.beta2 = options_.betas[1];
  u.eps = options_.eps;
  u.bias1 = 1 - std::pow(u.beta1, static_cast<double>(step));
  u.bias2 = 1 - std::pow(u.beta2, static_cast<double>(step));
}

AdamW::AdamW(std::vector<Tensor> params, AdamWOptions o) : AdamW(one_group(std::move(params)), o) {}
AdamW::AdamW(NamedParameters params, AdamWOptions o) : AdamW(one_group(std::move(params)), o) {}
AdamW::AdamW(std::vector<ParamGroup> groups, AdamWOptions o) : Adam(std::move(groups), "AdamW", as_adam(o), true) {}

// ---- Adagrad -------------------------------------------------------------------------------------

Adagrad::Adagrad(std::vector<Tensor> params, AdagradOptions o) : Adagrad(one_group(std::move(params)), o) {}
Adagrad::Adagrad(NamedParameters params, AdagradOptions o) : Adagrad(one_group(std::move(params)), o) {}
Adagrad::Adagrad(std::vector<ParamGroup> groups, AdagradOptions o)
    : Optimizer(resolved(std::move(groups), checked(o).lr, o.weight_decay), {.name = "Adagrad",
                                                                             .moments = {"sum"},
                                                                             .storage = o.storage,
                                                                             .low = o.low,
                                                                             .rounding = o.copy_rounding,
                                                                             .state_dtype = o.state_dtype,
                                                                             .state_rounding = o.state_rounding,
                                                                             .initial = o.initial_accumulator_value,
                                                                             .slowest_decay = 1}),
      options_(o) {}

void Adagrad::rule(const ParamGroup& group, std::int64_t step, kernels::Update& u) const {
  u.rule = kernels::Rule::adagrad;
  u.lr = group.lr / (1 + static_cast<double>(step - 1) * options_.lr_decay);
  u.weight_decay = group.weight_decay;
  u.eps = options_.eps;
}

// ---- Lion ----------------------------------------------------------------------------------------

Lion::Lion(std::vector<Tensor> params, LionOptions o) : Lion(one_group(std::move(params)), o) {}
Lion::Lion(NamedParameters params, LionOptions o) : Lion(one_group(std::move(params)), o) {}
Lion::Lion(std::vector<ParamGroup> groups, LionOptions o)
    : Optimizer(resolved(std::move(groups), checked(o).lr, o.weight_decay), {.name = "Lion",
                                                                             .moments = {"exp_avg"},
                                                                             .storage = o.storage,
                                                                             .low = o.low,
                                                                             .rounding = o.copy_rounding,
                                                                             .state_dtype = o.state_dtype,
                                                                             .state_rounding = o.state_rounding,
                                                                             .slowest_decay = o.betas[1]}),
      options_(o) {}

void Lion::rule(const ParamGroup& group, std::int64_t, kernels::Update& u) const {
  u.rule = kernels::Rule::lion;
  u.lr = group.lr;
  u.weight_decay = group.weight_decay;
  u.beta1 = options_.betas[0];
  u.beta2 = options_.betas[1];
}

// ---- Adafactor -----------------------------------------------------------------------------------

Adafactor::Adafactor(std::vector<Tensor> params, AdafactorOptions o) : Adafactor(one_group(std::move(params)), o) {}
Adafactor::Adafactor(NamedParameters params, AdafactorOptions o) : Adafactor(one_group(std::move(params)), o) {}
Adafactor::Adafactor(std::vector<ParamGroup> groups, AdafactorOptions o)
    : Optimizer(resolved(std::move(groups), checked(o).lr, o.weight_decay), {.name = "Adafactor",
                                                                             .moments = {"row_var", "col_var"},
                                                                             .storage = o.storage,
                                                                             .low = o.low,
                                                                             .rounding = o.copy_rounding,
                                                                             .factored = true}),
      options_(o) {}

void Adafactor::rule(const ParamGroup& group, std::int64_t step, kernels::Update& u) const {
  u.rule = kernels::Rule::adafactor;
  u.weight_decay = group.lr * group.weight_decay;
  u.beta2 = std::pow(static_cast<double>(step), options_.beta2_decay);
}

// The step relative to the size of the parameter, and clipped to d.
void Adafactor::measure(const ParamGroup& group, std::int64_t step, kernels::Update& u) const {
  u.eps = options_.eps1.value_or(format_info(u.g_dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32).epsilon);
  double sums[2];  // of squares: weights, and the step before it is scaled
  auto& q = kernels::cpu_queue();
  kernels::adafactor_moments(q, u, sums);
  const double n = static_cast<double>(u.n), size = std::sqrt(kernels::read(q, sums) / n), length = std::sqrt(kernels::read(q, sums + 1) / n);
  const double relative = std::min(group.lr, 1 / std::sqrt(static_cast<double>(step)));
  u.lr = std::max(options_.eps2, size) * relative / std::max(1.0, length / options_.d);
}

}  // namespace mezzo::optim
