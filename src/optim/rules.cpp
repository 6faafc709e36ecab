// rules.cpp - SGD, Adam and AdamW: their options, and the numbers that a kernel pass needs from them.
#include <cmath>

#include "core/fail.h"
#include "kernels/kernels.h"

#include <mezzo/optim.h>

namespace mezzo::optim {
namespace {

void require(const char* op, bool ok, const char* what, double given, const char* wanted) {
  if (!ok) fail(op, fmt::format("{} = {} given, {} wanted", what, given, wanted));
}
bool at_least_0(double x) { return x >= 0 && std::isfinite(x); }

std::vector<ParamGroup> one_group(std::vector<Tensor> params) { return {{.params = std::move(params)}}; }

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

AdamOptions as_adam(const AdamWOptions& o) {
  return {.lr = o.lr,
          .betas = o.betas,
          .eps = o.eps,
          .weight_decay = o.weight_decay,
          .storage = o.storage,
          .low = o.low,
          .state_dtype = o.state_dtype,
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
  require(op, at_least_0(o.eps), "eps", o.eps, "a finite number of 0 or more");
  require(op, at_least_0(o.weight_decay), "weight_decay", o.weight_decay, "a finite number of 0 or more");
  if (o.state_dtype != Dtype::f32)
    fail(op, fmt::format("state_dtype = {} given, f32 wanted: other moments are not in this version", name(o.state_dtype)));
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
                 .rounding = o.copy_rounding}),
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
    : Optimizer(resolved(std::move(groups), checked(name, o).lr, o.weight_decay),
                {.name = name, .moments = {"exp_avg", "exp_avg_sq"}, .storage = o.storage, .low = o.low, .rounding = o.copy_rounding}),
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

}  // namespace mezzo::optim
