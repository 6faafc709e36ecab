// init.h - initial values of parameters, from the default generator, and the checks of sizes.
#pragma once

#include <mezzo/tensor.h>

namespace mezzo::nn {

/// Uniform in [-bound, bound); normal of mean 0. Contiguous f32 leaves-to-be; the same bits on every instruction set.
Tensor uniform(const Shape&, double bound);
Tensor normal(const Shape&, double std);

/// Error unless n is 1 or more.
void require_size(const char* module, const char* field, std::int64_t n);

}  // namespace mezzo::nn
