// projection.cpp
#include "models/projection.h"

#include <cmath>

#include "autograd/context.h"
#include "core/fail.h"
#include "nn/init.h"
#include "tensor/layout.h"

namespace mezzo::models {

/// One matrix of an adapter, under the name that PEFT gives it: lora_A.weight, lora_B.weight.
struct Projection::Factor final : nn::Module {
  explicit Factor(Tensor w) : weight(register_parameter("weight", std::move(w))) { mark_exempt(weight); }
  Tensor weight;
};

Projection::Projection(const Maker& make, const std::string& path, std::int64_t in, std::int64_t out, bool with_bias, double std)
    : in_(in), out_(out), blocks_(make.blocks(path + ".weight", out, in)) {
  if (!blocks_) weight = register_parameter("weight", make.matrix(path + ".weight", out, in, std));
  if (!with_bias) return;
  bias = register_parameter("bias", make.vector(path + ".bias", out, 0));
  mark_exempt(bias);
}

Tensor Projection::run(const Tensor& x, const Tensor& residual) {
  Tensor r = residual;
  if (lora_a_) {
    // The adapter's part joins the residual, in the epilogue of a product; the product with the weight is added to that in another.
    const Tensor low = mul(linear(dropout(x, dropout_, is_training()), lora_a_->weight), scale_);  // (..., r)
    r = residual.defined() ? linear_add(residual, low, lora_b_->weight) : linear(low, lora_b_->weight);
  }
  if (blocks_) return block_linear(x, blocks_, bias, r);
  return r.defined() ? linear_add(r, x, weight, bias) : linear(x, weight, bias);
}

void Projection::add_lora(const LoraOptions& o) {
  const double rank = static_cast<double>(o.rank);
  scale_ = o.rslora ? o.alpha / std::sqrt(rank) : o.alpha / rank;
  dropout_ = o.dropout;
  lora_a_ = register_module("lora_A", std::make_shared<Factor>(nn::uniform({o.rank, in_}, 1 / std::sqrt(static_cast<double>(in_)))));
  lora_b_ = register_module("lora_B", std::make_shared<Factor>(zeros({out_, o.rank})));
}

}  // namespace mezzo::models
