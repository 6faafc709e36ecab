// watch.cpp - what is done at each step, and how an overflow is explained.
#include "train/watch.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "core/log.h"

namespace mezzo::train {
namespace {

std::string place(const inspect::Overflow& o) {
  const std::string op = o.backward ? fmt::format("the backward of {}", o.op) : o.op;
  return o.module.empty() ? op : fmt::format("{} in {}", op, o.module);
}

/// "it began in the backward of linear in h.3.mlp (f16), which was given values up to 512".
std::string sentence(const inspect::Overflow& o) {
  if (o.arrived) return fmt::format("it began in the gradients that reached {}, as they were summed or rounded to {}", place(o), name(o.dtype));
  double largest = 0;
  for (const auto& r : o.inputs) largest = std::max(largest, r.largest);
  return fmt::format("it began in {} ({}), which was given values up to {:.3g}", place(o), name(o.dtype), largest);
}

io::Json to_json(const inspect::Overflow& o, std::optional<bool> cured) {
  io::Json j{{"module", o.module},    {"op", o.op}, {"backward", o.backward}, {"arrived", o.arrived}, {"value", o.nan ? "NaN" : "Inf"},
             {"dtype", name(o.dtype)}};
  for (const auto& r : o.inputs) j["inputs"].push_back(train::to_json(r));
  j["before"] = o.before;
  j["cured_by_f32"] = cured ? io::Json(*cured) : io::Json(nullptr);
  return j;
}

/// A policy with one op more in f32; none where it is, or has no class to choose.
std::optional<amp::Policy> in_f32(amp::Policy policy, const std::string& op) {
  if (policy.of(op) == amp::Cast::f32) return std::nullopt;
  try {
    return policy.set(op, amp::Cast::f32);
  } catch (const Error&) { return std::nullopt; }
}

}  // namespace

RunWatch::RunWatch(const TrainOptions& o, const PrecisionPlan& plan, std::int64_t done) : options_(o), plan_(plan), events_(o.out, done) {
  if (o.inspect > 0) numerics_.emplace(o.out, std::max<std::int64_t>(done, 0), o.tensorboard);
}

StepReport RunWatch::step(std::int64_t number, const Machinery& machine, const Loss& loss) {
  const double scale = machine.step->scaler().get_scale();
  StepReport report;
  if (!numerics_ || number % options_.inspect != 0) {
    report = (*machine.step)(loss);
  } else {
    inspect::Inspector inspector;
    std::optional<inspect::Inspector::Watch> watching(std::in_place, inspector);
    report = (*machine.step)(loss, [&] {
      watching.reset();
      inspector.parameters(*machine.model);
      inspector.before_update(*machine.optimizer);
    });
    if (report.applied()) inspector.after_update();
    numerics_->write({.step = number, .scale = report.result.scale / train::loss_divisor(options_), .records = inspector.take()});
  }
  look_at(number, machine, scale, report);
  return report;
}

void RunWatch::look_at(std::int64_t number, const Machinery& machine, double scale_before, const StepReport& report) {
  const auto& scaler = machine.step->scaler();
  const double scale = scaler.get_scale();
  if (report.applied() && scale != scale_before)
    events_.write({.step = number, .kind = "scale", .text = fmt::format("loss scale {:g} -> {:g}", scale_before, scale)});
  if (scaler.is_enabled() && plan_.scaler && plan_.scaler->min_scale > 0 && !report.applied() && scale <= plan_.scaler->min_scale)
    warn_once(number, "floor",
              fmt::format("the loss scale stands at its floor of {:g} and gradients still overflow; bf16 has f32's range", plan_.scaler->min_scale));
  // Some gradients are zero by nature, those of tokens that did not occur for instance; many, in every step, are what a format lost.
  constexpr double kMany = 0.25;
  constexpr int kInARow = 20;
  const bool many = plan_.recipe.low == Dtype::f16 && report.applied() && report.result.zero_fraction > kMany;
  steps_with_zeros_ = many ? steps_with_zeros_ + 1 : 0;
  if (steps_with_zeros_ == kInARow)
    warn_once(number, "underflow",
              fmt::format("in each of the last {} steps more than {:.0f} % of all gradient elements were zero: f16 may be losing them{}", kInARow,
                          100 * kMany, plan_.scaler ? "" : "; nothing scales the loss, see --loss-scale"));
}

void RunWatch::warn_once(std::int64_t number, const std::string& about, const std::string& text) {
  if (warned_.insert(about).second) warn(number, text);
}

void RunWatch::sync() {
  events_.sync();
  if (numerics_) numerics_->sync();
}

void RunWatch::warn(std::int64_t number, const std::string& text) {
  log(LogLevel::warning, fmt::format("step {}: {}", number, text));
  events_.write({.step = number, .kind = "warning", .text = text});
}

RunWatch::Explanation RunWatch::explain(std::int64_t number, const Machinery& machine, const Loss& loss, std::uint64_t counter,
                                        const StepReport& report) {
  auto& random = default_generator();
  const std::uint64_t after = random.counter();
  const double scale = report.result.scale;
  const auto again = [&](const std::optional<amp::Policy>& policy) {
    random.seek(counter);
    return inspect::find_overflow([&] { machine.step->rehearse(loss, scale, policy); });
  };
  const auto found = again({});
  std::optional<bool> cured;
  const amp::Policy before = policy_of(options_).value_or(amp::Policy::mezzo());
  if (const auto policy = found && plan_.recipe.autocast ? in_f32(before, found->op) : std::nullopt) cured = !again(policy).has_value();
  random.seek(after);

  Explanation e{.text = found ? sentence(*found) : "run again, the same step was finite"};
  if (cured)
    e.text += *cured ? fmt::format("; with {} in f32 the step is finite", found->op) : fmt::format("; {} in f32 alone does not cure it", found->op);
  if (cured.value_or(false)) e.curing_op = found->op;
  if (found) e.place = std::make_shared<io::Json>(to_json(*found, cured));
  // In f16 the next scale, or batch, may do without; elsewhere nothing is passed over that could be.
  const char* what = plan_.recipe.low == Dtype::f16 ? "skipped" : "not applied";
  events_.write({.step = number,
                 .kind = "overflow",
                 .text = fmt::format("{}: {} in the gradient of {}{}; {}", what, report.result.found_nan ? "NaN" : "Inf", report.result.culprit,
                                     plan_.scaler ? fmt::format(" at loss scale {:g}", scale) : std::string(), e.text),
                 .details = e.place});
  return e;
}

}  // namespace mezzo::train
