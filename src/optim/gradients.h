// gradients.h - gradients as kernels take them, and the one look at all of them that clipping and loss scaling share.
#pragma once

#include <mezzo/optim.h>

namespace mezzo::optim {

/// A contiguous copy of t in `dtype`, outside the graph.
Tensor copy_of(const Tensor& t, Dtype dtype);

/// A gradient that a kernel can read: contiguous.
struct ReadableGradient {
  Tensor g;
  Dtype round = Dtype::f32;  // the 16-bit dtype that an f32 buffer stands for: round on load; f32: do not
};
/// w's gradient itself, or a copy of a strided one.
ReadableGradient readable_gradient(const Tensor& w, const StepScaling& scaling);

/// What one look at all gradients finds.
struct GradientTotals {
  double sum_squares = 0;
  double norm = 0;  // its root: Inf or NaN when an element is
  std::int64_t inf = 0, nan = 0, zero = 0, elements = 0;
  std::ptrdiff_t culprit = -1;  // index of the first parameter with an element that is not finite; -1: none
  bool finite() const { return culprit < 0; }
};
/// Of the groups' gradients, scaled and rounded as a step with `scaling` reads them: one pass, then one read.
GradientTotals measure_gradients(const std::vector<ParamGroup>& groups, const StepScaling& scaling);

/// w's gradient becomes gradient * scale, in place whatever its strides; but an f16 one becomes f32, or what scaling saved would be lost.
void unscale_gradient(const Tensor& w, double scale);

/// min(1, max_norm / (norm + 1e-6)): torch's clipping factor.
double clip_factor(double norm, double max_norm);

}  // namespace mezzo::optim
