// recipe.cpp - the recipes, and how a request becomes a plan: which formats, where the truth is, what scales the loss.
#include <array>
#include <charconv>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include <mezzo/runtime.h>
#include <mezzo/train.h>

#include "core/fail.h"
#include "kernels/kernels.h"
#include "train/automatic.h"

namespace mezzo::train {
namespace {

constexpr const char* kOp = "precision";

// Bytes a parameter (docs/precision-recipes.md): AdamW on a matrix (weight + cached cast, master, remainder or compensation + gradient + two
// moments).
const std::array<Recipe, 10>& recipes() {
  using optim::Storage;
  constexpr double kStaticScale = 1024;  // between the paper's 8 and 32,768: ten binades more below, and gradients up to 64 above
  // clang-format off
  static const std::array<Recipe, 10> all{{
      {.name = "fp32", .autocast = false, .low = Dtype::f32, .storage = Storage::f32, .bytes_per_parameter = 16},
      {.name = "bf16", .autocast = true, .low = Dtype::bf16, .storage = Storage::f32, .bytes_per_parameter = 18},
      {.name = "fp16", .autocast = true, .low = Dtype::f16, .storage = Storage::f32, .scaling = true, .bytes_per_parameter = 18},
      {.name = "bf16-master", .autocast = true, .low = Dtype::bf16, .storage = Storage::master, .bytes_per_parameter = 16},
      {.name = "fp16-master", .autocast = true, .low = Dtype::f16, .storage = Storage::master, .scaling = true, .bytes_per_parameter = 16},
      {.name = "bf16-split", .autocast = true, .low = Dtype::bf16, .storage = Storage::split, .bytes_per_parameter = 14},
      {.name = "bf16-kahan", .autocast = true, .low = Dtype::bf16, .storage = Storage::kahan, .bytes_per_parameter = 10},
      {.name = "bf16-sr", .autocast = true, .low = Dtype::bf16, .storage = Storage::stochastic, .bytes_per_parameter = 8},
      {.name = "bf16-pure", .autocast = true, .low = Dtype::bf16, .storage = Storage::pure, .bytes_per_parameter = 12},
      {.name = "fp16-pure", .autocast = true, .low = Dtype::f16, .storage = Storage::pure, .scaling = true, .static_scale = kStaticScale,
       .bytes_per_parameter = 12},
  }};
  // clang-format on
  return all;
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

amp::GradScalerOptions constant_scale(double scale) { return {.init_scale = scale, .dynamic = false}; }

/// --loss-scale as it was written; warnings go into the plan.
std::optional<amp::GradScalerOptions> scaler_of(const std::string& loss_scale, PrecisionPlan& plan) {
  const Recipe& r = plan.recipe;
  if (loss_scale.empty()) {
    if (!r.scaling) return std::nullopt;
    return r.static_scale > 0 ? constant_scale(r.static_scale) : amp::GradScalerOptions{};
  }
  if (loss_scale == "none") {
    if (r.low == Dtype::f16)
      plan.warnings.emplace_back("fp16 without loss scaling: gradients below 2^-25 become zero, and a step whose gradients overflow is skipped");
    return std::nullopt;
  }
  const auto constant = number(loss_scale);
  if (loss_scale != "dynamic" && !constant)
    fail("loss scale", fmt::format("`{}` given, dynamic, none or a number wanted", loss_scale),
         near_names(loss_scale, std::array<std::string_view, 2>{"dynamic", "none"}));
  if (constant && !(*constant > 0 && *constant <= format_info(Dtype::f32).max))
    fail("loss scale", fmt::format("{} given, a number above 0 that f32 holds wanted", loss_scale));
  if (r.low != Dtype::f16)
    plan.warnings.push_back(fmt::format("loss scaling with {}: its exponents reach as far as f32's, so scaling gains nothing", r.name));
  return constant ? constant_scale(*constant) : amp::GradScalerOptions{};
}

std::vector<std::string> what_stays_f32(const Recipe& r, bool adapters) {
  using optim::Storage;
  if (r.low == Dtype::f32) return {adapters ? "everything that is trained, and everything that is computed" : "everything"};
  std::vector<std::string> kept{
      "sums inside matrix products, softmax, norms and activations: 16 bits stop counting (2048 + 1 = 2048 in f16)",
      "losses and sums to a scalar: their range and their last digits matter",
  };
  if (adapters) {
    kept.emplace_back("norm weights and biases of the frozen model: few, and added to wide values");
    if (r.storage != Storage::pure)
      kept.emplace_back("adapters, their gradients and moments: all that is trained, and few; products read a cached 16-bit copy");
    return kept;
  }
  if (r.storage != Storage::pure) kept.emplace_back("norm weights and biases, and their gradients: few, and added to wide values");
  if (r.storage == Storage::stochastic || r.storage == Storage::kahan)
    kept.emplace_back("moments of what is f32; those of 16-bit weights are bf16, rounded by chance: to nearest, they would not decay");
  else kept.emplace_back("AdamW's moments: with beta2 = 0.999 a step changes them by less than a 16-bit format can show");
  switch (r.storage) {
    case Storage::f32:
      kept.emplace_back("weights: the truth that the updates go to; products read a cached 16-bit copy");
      kept.emplace_back("gradients of weights, summed in f32 straight out of the product");
      return kept;
    case Storage::master:
      kept.emplace_back("master weights, in the optimizer: an update of lr * 1 is smaller than half the spacing of a 16-bit weight");
      break;
    case Storage::split: kept.emplace_back("weights, as bf16 and, in the optimizer, the 16 bits that complete them to f32"); break;
    case Storage::kahan: kept.emplace_back("nothing of the matrix weights; what their rounding leaves over is kept in the optimizer, in bf16"); break;
    case Storage::stochastic:
      kept.emplace_back("nothing of the matrix weights; they are rounded by chance, so that small updates count on average");
      break;
    case Storage::pure:
      kept.emplace_back("nothing of the weights: updates below half their spacing vanish (the baseline, not a recommendation)");
      break;
  }
  kept.emplace_back("gradients of weights that several products or micro-batches reach, until the step: one rounding instead of many");
  return kept;
}

std::string what_is_16bit(const Recipe& r, bool adapters) {
  if (r.low == Dtype::f32) return "nothing";
  const char* weights = adapters                            ? r.storage == optim::Storage::pure ? "adapters and their gradients, " : ""
                        : r.storage == optim::Storage::f32  ? ""
                        : r.storage == optim::Storage::pure ? "all weights and their gradients, "
                                                            : "matrix weights and their gradients, ";
  return fmt::format("{}operands of products and attention, the residual stream and its gradients, what is kept for backward", weights);
}

std::string scaling_text(const PrecisionPlan& p) {
  if (!p.scaler) return "none";
  const auto& s = *p.scaler;
  if (!s.dynamic) return fmt::format("constant, {}", s.init_scale);
  return fmt::format("dynamic, from {}: times {} at Inf or NaN (that step is skipped), times {} after {} clean steps in a row", s.init_scale,
                     s.backoff_factor, s.growth_factor, s.growth_interval);
}

}  // namespace

Recipe recipe(std::string_view given) {
  const std::string_view wanted = given == "auto" ? automatic(0, 0).recipe : given;
  for (const auto& r : recipes())
    if (r.name == wanted) return r;
  auto names = recipe_names();
  names.emplace_back("auto");
  std::string near = near_names(given, names);
  fail(kOp, fmt::format("`{}` given, one of {} wanted", given, fmt::join(names, ", ")), near);
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const auto& r : recipes()) names.push_back(r.name);
  return names;
}

PrecisionPlan resolve(const PlanOptions& o) {
  PrecisionPlan plan;
  plan.requested = o.precision;
  const bool is_auto = o.precision == "auto";
  const Choice choice = automatic(o.width, o.rows);
  plan.recipe = recipe(is_auto ? choice.recipe : o.precision);
  plan.isa = mezzo::name(active_isa());
  if (is_auto) plan.reason = choice.reason;
  const Dtype low = plan.recipe.low;
  if (is_16bit(low) && !kernels::native_gemm(low))
    plan.warnings.push_back(fmt::format("{} has no {} products: operands are widened to f32 panel by panel, which saves memory and not time",
                                        plan.isa, mezzo::name(low)));
  plan.scaler = scaler_of(o.loss_scale, plan);
  plan.frozen = o.frozen;
  plan.stays_f32 = what_stays_f32(plan.recipe, !o.frozen.empty());
  return plan;
}

std::string to_string(const PrecisionPlan& p) {
  std::string out;
  const auto line = [&out](std::string_view key, std::string_view text) { out += fmt::format("{:<10} {}\n", key, text); };
  line("precision", p.requested == p.recipe.name ? p.recipe.name : fmt::format("{} ({}: {})", p.recipe.name, p.requested, p.reason));
  const bool adapters = !p.frozen.empty();
  line("16-bit", what_is_16bit(p.recipe, adapters));
  for (std::size_t i = 0; i < p.stays_f32.size(); ++i) line(i == 0 ? "f32" : "", p.stays_f32[i]);
  if (adapters) line("frozen", p.frozen);
  line("loss scale", scaling_text(p));
  if (!adapters) line("memory", fmt::format("{} bytes a parameter with AdamW", p.recipe.bytes_per_parameter));
  for (const auto& w : p.warnings) line("warning", w);
  return out;
}

}  // namespace mezzo::train
