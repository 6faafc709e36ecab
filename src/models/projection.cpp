// projection.cpp
#include "models/projection.h"

#include "nn/init.h"

namespace mezzo::models {

Projection::Projection(std::int64_t in, std::int64_t out, bool with_bias, double std) {
  weight = register_parameter("weight", nn::normal({out, in}, std));
  if (!with_bias) return;
  bias = register_parameter("bias", zeros({out}));
  mark_exempt(bias);
}

Tensor Projection::run(const Tensor& x, const Tensor& residual) {
  return residual.defined() ? linear_add(residual, x, weight, bias) : linear(x, weight, bias);
}

}  // namespace mezzo::models
