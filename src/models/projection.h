// projection.h - a linear layer inside a language model: what adapters attach to.
#pragma once

#include <mezzo/nn.h>

namespace mezzo::models {

/// x w^T (+ b) (+ residual). weight (out, in), bias (out).
class Projection final : public nn::Module {
 public:
  Projection(std::int64_t in, std::int64_t out, bool bias, double std);
  Tensor forward(const Tensor& x) override { return run(x, {}); }
  Tensor run(const Tensor& x, const Tensor& residual);

  Tensor weight, bias;
};

}  // namespace mezzo::models
