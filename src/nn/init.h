// init.h - initial values of parameters, from the default generator.
#pragma once

#include <mezzo/tensor.h>

namespace mezzo::nn {

/// Uniform in [-bound, bound); normal of mean 0. Contiguous f32 leaves-to-be; the same bits on every instruction set.
Tensor uniform(const Shape&, double bound);
Tensor normal(const Shape&, double std);

}  // namespace mezzo::nn
