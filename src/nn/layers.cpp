// layers.cpp - the layers of nn.h.
#include <cmath>

#include <mezzo/nn.h>

#include "autograd/context.h"
#include "core/allocator.h"
#include "core/fail.h"
#include "nn/init.h"

namespace mezzo::nn {

Tensor uniform(const Shape& shape, double bound) {
  const GradMode off(false);
  const AutocastMode no_autocast(false);
  const MemoryScope scope(Memory::weights);
  return sub(mul(rand(shape), 2 * bound), bound);
}
Tensor normal(const Shape& shape, double std) {
  const GradMode off(false);
  const AutocastMode no_autocast(false);
  const MemoryScope scope(Memory::weights);
  return mul(randn(shape), std);
}

void require_size(const char* module, const char* field, std::int64_t n) {
  if (n < 1) fail(module, fmt::format(".{} = {} given, 1 or more wanted", field, n));
}

Linear::Linear(LinearOptions o) {
  require_size("Linear", "in", o.in);
  require_size("Linear", "out", o.out);
  const double bound = 1 / std::sqrt(static_cast<double>(o.in));
  weight = register_parameter("weight", uniform({o.out, o.in}, bound));
  if (!o.bias) return;
  bias = register_parameter("bias", uniform({o.out}, bound));
  mark_exempt(bias);
}
Tensor Linear::forward(const Tensor& x) { return linear(x, weight, bias); }

Embedding::Embedding(EmbeddingOptions o) {
  require_size("Embedding", "num", o.num);
  require_size("Embedding", "dim", o.dim);
  weight = register_parameter("weight", normal({o.num, o.dim}, 1));
}
Embedding::Embedding(Tensor table) {
  if (!table.defined() || table.dim() != 2) fail("Embedding", "a table of another shape given, (num, dim) wanted");
  weight = register_parameter("weight", std::move(table));
}
Tensor Embedding::forward(const Tensor& ids) { return embedding(ids, weight); }

LayerNorm::LayerNorm(LayerNormOptions o) : eps_(o.eps) {
  require_size("LayerNorm", "dim", o.dim);
  weight = register_parameter("weight", ones({o.dim}));
  mark_exempt(weight);
  if (!o.bias) return;
  bias = register_parameter("bias", zeros({o.dim}));
  mark_exempt(bias);
}
Tensor LayerNorm::forward(const Tensor& x) { return layer_norm(x, weight, bias, {.eps = eps_}); }

RmsNorm::RmsNorm(RmsNormOptions o) : eps_(o.eps) {
  require_size("RmsNorm", "dim", o.dim);
  weight = register_parameter("weight", ones({o.dim}));
  mark_exempt(weight);
}
Tensor RmsNorm::forward(const Tensor& x) { return rms_norm(x, weight, {.eps = eps_}); }

Dropout::Dropout(DropoutOptions o) : p_(o.p) {
  if (!(p_ >= 0 && p_ < 1)) fail("Dropout", fmt::format(".p = {} given, 0 <= p < 1 wanted", p_));
}
Tensor Dropout::forward(const Tensor& x) { return dropout(x, p_, is_training()); }

Sequential::Sequential(std::vector<std::shared_ptr<Module>> parts) : parts_(std::move(parts)) { register_modules(parts_); }
Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& p : parts_) y = p->forward(y);
  return y;
}

Mlp::Mlp(MlpOptions o) {
  if (o.layers < 1) fail("Mlp", fmt::format(".layers = {} given, 1 or more wanted", o.layers));
  for (int i = 0; i <= o.layers; ++i)
    parts_.push_back(register_module(std::to_string(i),
                                     std::make_shared<Linear>(LinearOptions{.in = i == 0 ? o.in : o.width, .out = i == o.layers ? o.out : o.width})));
}
Tensor Mlp::forward(const Tensor& x) {
  Tensor y = x;
  for (std::size_t i = 0; i < parts_.size(); ++i) y = i + 1 < parts_.size() ? gelu(parts_[i]->forward(y)) : parts_[i]->forward(y);
  return y;
}

}  // namespace mezzo::nn
