// gradients.cpp - reading, measuring, unscaling and clipping gradients.
#include "optim/gradients.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "core/parts.h"
#include "kernels/kernels.h"
#include "tensor/layout.h"

namespace mezzo::optim {

Tensor copy_of(const Tensor& t, Dtype dtype) {
  Tensor copy = make_tensor(t.shape(), dtype);
  copy_elements(copy, t);
  return copy;
}

namespace {

/// Whether an f32 gradient stands for a 16-bit one: several contributions were added up in f32, and are rounded once.
Dtype rounding_of(const Tensor& w, const Tensor& g, bool unscaled) {
  return is_16bit(w.dtype()) && g.dtype() == Dtype::f32 && !unscaled ? w.dtype() : Dtype::f32;
}

/// Rounds g's elements to a 16-bit dtype and leaves them in f32; f32: nothing to do.
void round_elements(const Tensor& g, Dtype round) {
  if (is_16bit(round)) copy_elements(g, copy_of(g, round));
}

void scale_elements(const Tensor& g, double scale) {
  const MemoryScope scope(Memory::workspace);
  const Tensor flat = g.is_contiguous() ? g : copy_of(g, g.dtype());
  kernels::scale_inplace(kernels::cpu_queue(), flat.dtype(), mutable_data(flat), flat.numel(), scale);
  if (!g.is_contiguous()) copy_elements(g, flat);
  bump_version(g);
}

/// The gradients that are there, with the index of their parameter.
template <class F> void for_each_gradient(const std::vector<ParamGroup>& groups, F&& f) {
  std::ptrdiff_t index = 0;
  for (const auto& group : groups)
    for (const auto& w : group.params) {
      if (w.grad().defined()) f(w, index);
      ++index;
    }
}

}  // namespace

ReadableGradient readable_gradient(const Tensor& w, const StepScaling& scaling) {
  const MemoryScope scope(Memory::workspace);
  const Tensor g = w.grad();
  return {g.is_contiguous() ? g : copy_of(g, g.dtype()), rounding_of(w, g, scaling.unscaled)};
}

GradientTotals measure_gradients(const std::vector<ParamGroup>& groups, const StepScaling& scaling) {
  const PartScope timed(Part::optimizer);
  auto& q = kernels::cpu_queue();
  GradientTotals totals;
  std::size_t count = 0;
  for_each_gradient(groups, [&](const Tensor&, std::ptrdiff_t) { ++count; });
  if (count == 0) return totals;
  const Block block = q.scratch(count * sizeof(kernels::GradStats));
  auto* stats = block.as<kernels::GradStats>();
  std::size_t k = 0;
  for_each_gradient(groups, [&](const Tensor& w, std::ptrdiff_t) {
    const ReadableGradient r = readable_gradient(w, scaling);
    kernels::grad_stats(q, r.g.dtype(), data(r.g), r.g.numel(), scaling.g_scale, stats + k++, r.round);
    totals.elements += r.g.numel();
  });
  k = 0;
  for_each_gradient(groups, [&](const Tensor&, std::ptrdiff_t index) {
    const kernels::GradStats s = kernels::read(q, stats + k++);
    totals.sum_squares += s.sum_squares;
    totals.inf += s.inf;
    totals.nan += s.nan;
    totals.zero += s.zero;
    if (totals.culprit < 0 && (s.inf > 0 || s.nan > 0)) totals.culprit = index;
  });
  totals.norm = std::sqrt(totals.sum_squares);
  return totals;
}

void unscale_gradient(const Tensor& w, double scale) {
  Tensor g = w.grad();
  round_elements(g, rounding_of(w, g, false));
  if (g.dtype() == Dtype::f16) {
    const MemoryScope scope(Memory::gradients);
    g = copy_of(g, Dtype::f32);
    w.impl()->more().grad = g;
  }
  scale_elements(g, scale);
}

double clip_factor(double norm, double max_norm) { return std::min(1.0, max_norm / (norm + 1e-6)); }

double clip_grad_norm(const std::vector<Tensor>& params, double max_norm) {
  if (!(max_norm >= 0)) fail("clip_grad_norm", fmt::format("max_norm = {} given, 0 or more wanted", max_norm));
  const std::vector<ParamGroup> group{{.params = params}};
  const StepScaling as_is{.unscaled = true};
  const GradientTotals totals = measure_gradients(group, as_is);
  if (std::isfinite(totals.norm) && clip_factor(totals.norm, max_norm) < 1)
    for_each_gradient(group, [&](const Tensor& w, std::ptrdiff_t) { scale_elements(w.grad(), clip_factor(totals.norm, max_norm)); });
  return totals.norm;
}

}  // namespace mezzo::optim
