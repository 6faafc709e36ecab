// projection.cpp - the product with adapter, and both merged.
#include "models/projection.h"

#include <cmath>

#include "autograd/context.h"
#include "core/fail.h"
#include "nn/init.h"
#include "ops/product.h"
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
  Joined adapter;
  if (lora_a_) adapter = {mul(linear(dropout(x, lora_.dropout, is_training()), lora_a_->weight), lora_scale()), lora_b_->weight};  // x (..., r)
  return blocks_ ? block_linear(x, blocks_, bias, residual, adapter) : detail::linear(x, weight, bias, residual, adapter);
}

void Projection::add_lora(const LoraOptions& o) {
  lora_ = o;
  lora_a_ = register_module("lora_A", std::make_shared<Factor>(nn::uniform({o.rank, in_}, 1 / std::sqrt(static_cast<double>(in_)))));
  lora_b_ = register_module("lora_B", std::make_shared<Factor>(zeros({out_, o.rank})));
}

Tensor Projection::lora_a() const { return lora_a_->weight; }
Tensor Projection::lora_b() const { return lora_b_->weight; }
double Projection::lora_scale() const {
  const auto rank = static_cast<double>(lora_.rank);
  return lora_.rslora ? lora_.alpha / std::sqrt(rank) : lora_.alpha / rank;
}

Tensor Projection::merged() const {
  const GradMode off(false);
  const Tensor w = blocks_ ? unpacked(*blocks_, Dtype::f32) : weight.detach().to(Dtype::f32);
  return has_lora() ? add(w, mul(matmul(lora_b(), lora_a()), lora_scale())) : w;
}

}  // namespace mezzo::models
