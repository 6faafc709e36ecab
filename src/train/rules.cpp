// rules.cpp - from options to an optimizer.
#include "train/rules.h"

#include <algorithm>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include "core/fail.h"

namespace mezzo::train {
namespace {

constexpr const char* kOp = "train";

enum class Rule : std::uint8_t { adamw, adam, sgd, adagrad, lion, adafactor };
constexpr std::array<std::string_view, 6> kRules{"adamw", "adam", "sgd", "adagrad", "lion", "adafactor"};
constexpr std::array<std::string_view, 3> kStateDtypes{"f32", "bf16", "u8"};

template <std::size_t N> std::size_t index_of(const char* flag, const std::string& given, const std::array<std::string_view, N>& names) {
  const auto it = std::find(names.begin(), names.end(), given);
  if (it == names.end()) fail(kOp, fmt::format("{} {} given, one of {} wanted", flag, given, fmt::join(names, ", ")), near_names(given, names));
  return static_cast<std::size_t>(it - names.begin());
}

Rule rule_of(const TrainOptions& o) { return static_cast<Rule>(index_of("--optimizer", o.optimizer, kRules)); }

std::optional<Dtype> state_dtype_of(const TrainOptions& o) {
  if (o.state_dtype.empty()) return std::nullopt;
  constexpr std::array kDtypes{Dtype::f32, Dtype::bf16, Dtype::u8};
  return kDtypes[index_of("--state-dtype", o.state_dtype, kStateDtypes)];
}

/// What all options have in common.
template <class O> O with_storage(O o, const TrainOptions& t, const Recipe& r) {
  o.lr = t.lr;
  o.storage = r.storage;
  if (r.storage != optim::Storage::f32) o.low = r.low;
  if constexpr (requires { o.state_dtype; }) o.state_dtype = state_dtype_of(t);
  return o;
}

}  // namespace

void check_optimizer(const TrainOptions& o) {
  const Rule rule = rule_of(o);
  const auto dtype = state_dtype_of(o);
  if (dtype == Dtype::u8 && rule != Rule::adamw && rule != Rule::adam)
    fail(kOp, fmt::format("--state-dtype u8 with --optimizer {} given: the 8-bit map is made for Adam's two moments", o.optimizer),
         "adamw and adam take it");
  if (dtype && rule == Rule::adafactor)
    fail(kOp, fmt::format("--state-dtype {} with --optimizer adafactor given: its states are rows and columns, and always f32", o.state_dtype));
  if (dtype && rule == Rule::sgd && o.momentum == 0)
    fail(kOp, fmt::format("--state-dtype {} given to sgd without --momentum, which keeps none", o.state_dtype));
}

std::string doubt_of_optimizer(const TrainOptions& o) {
  if (rule_of(o) != Rule::adafactor || !o.tune || o.tune->full) return {};
  return "adafactor's steps go by the size of a matrix, and adapters begin at zero, so they hardly move; adamw, adam and lion train them";
}

std::array<double, 2> betas_of(const TrainOptions& o) {
  return o.betas.value_or(rule_of(o) == Rule::lion ? std::array{0.9, 0.99} : std::array{0.9, 0.95});
}

std::unique_ptr<optim::Optimizer> make_optimizer(const TrainOptions& o, const Recipe& r, std::vector<optim::ParamGroup> groups) {
  const auto betas = betas_of(o);
  switch (rule_of(o)) {
    case Rule::adamw: return std::make_unique<optim::AdamW>(std::move(groups), with_storage(optim::AdamWOptions{.betas = betas}, o, r));
    case Rule::adam: return std::make_unique<optim::Adam>(std::move(groups), with_storage(optim::AdamOptions{.betas = betas}, o, r));
    case Rule::sgd: return std::make_unique<optim::Sgd>(std::move(groups), with_storage(optim::SgdOptions{.momentum = o.momentum}, o, r));
    case Rule::adagrad: return std::make_unique<optim::Adagrad>(std::move(groups), with_storage(optim::AdagradOptions{}, o, r));
    case Rule::lion: return std::make_unique<optim::Lion>(std::move(groups), with_storage(optim::LionOptions{.betas = betas}, o, r));
    case Rule::adafactor: return std::make_unique<optim::Adafactor>(std::move(groups), with_storage(optim::AdafactorOptions{}, o, r));
  }
  return nullptr;
}

}  // namespace mezzo::train
