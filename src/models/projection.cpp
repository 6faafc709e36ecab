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
    // The adapter's part is what the product with the weight is added to: one rounding, and no pass of its own.
    const Tensor low = mul(linear(dropout(x, dropout_, is_training()), lora_a_->weight), scale_);  // (..., r)
    r = residual.defined() ? linear_add(residual, low, lora_b_->weight) : linear(low, lora_b_->weight);
  }
  if (blocks_) return block_linear(x, blocks_, bias, r);
  return r.defined() ? linear_add(r, x, weight, bias) : linear(x, weight, bias);
}

void Projection::add_lora(const LoraOptions& o) {
  if (lora_a_) fail("add_lora", "an adapter given where one is already attached");
  const double rank = static_cast<double>(o.rank);
  scale_ = o.rslora ? o.alpha / std::sqrt(rank) : o.alpha / rank;
  dropout_ = o.dropout;
  lora_a_ = register_module("lora_A", std::make_shared<Factor>(nn::uniform({o.rank, in_}, 1 / std::sqrt(static_cast<double>(in_)))));
  lora_b_ = register_module("lora_B", std::make_shared<Factor>(zeros({out_, o.rank})));
}

Tensor Projection::merged_weight() const {
  const GradMode off(false);
  const AutocastMode no_autocast(false);
  const Tensor w = blocks_ ? unpacked(*blocks_, Dtype::f32) : weight.detach().to(Dtype::f32);
  if (!lora_a_) return w;
  return add(w, mul(mm(lora_b_->weight.to(Dtype::f32), lora_a_->weight.to(Dtype::f32)), scale_));
}

void Projection::quantize(kernels::Format format) {
  if (blocks_) return;
  const auto facts = kernels::facts(format);
  if (in_ % facts.elements != 0)
    fail("quantize", fmt::format("rows of {} elements given, a multiple of the {} of a {} block wanted", in_, facts.elements, facts.name));
  const GradMode off(false);
  const Tensor w = weight.detach().to(Dtype::f32);
  auto m = std::make_shared<BlockMatrix>(BlockMatrix{format, nullptr, out_, in_, nullptr});
  Tensor own;
  {
    const MemoryScope scope(Memory::weights);
    own = make_tensor({out_ * m->row_bytes()}, Dtype::u8);
  }
  kernels::quantize(kernels::cpu_queue(), format, static_cast<const float*>(data(w)), mutable_data(own), out_ * in_);
  m->blocks = static_cast<const std::byte*>(data(own));
  m->owner = std::make_shared<Tensor>(own);
  blocks_ = m;
  drop_parameter("weight");
  weight = {};
}

}  // namespace mezzo::models
