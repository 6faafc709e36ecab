// gpt.cpp - GPT-2's model: blocks, loss.
#include <cmath>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "models/gpt_block.h"
#include "models/positions.h"
#include "nn/init.h"
#include "tensor/layout.h"

namespace mezzo::models {
namespace {

/// GPT-2's initialisation: normal weights, zero biases.
std::shared_ptr<nn::Linear> gpt_linear(std::int64_t in, std::int64_t out, double std) {
  auto m = std::make_shared<nn::Linear>(nn::LinearOptions{.in = in, .out = out});
  const GradMode off(false);
  copy_(m->weight, nn::normal({out, in}, std));
  fill_(m->bias, 0);
  return m;
}

}  // namespace

Gpt::Block::Block(const GptOptions& o) : heads(o.heads), dropout_p(o.dropout) {
  const auto c = o.width;
  const double std = 0.02, residual = std / std::sqrt(2.0 * o.layers);
  ln_1 = register_module("ln_1", std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = c}));
  attn = register_module("attn", std::make_shared<Part>(gpt_linear(c, 3 * c, std), "c_attn", gpt_linear(c, c, residual)));
  ln_2 = register_module("ln_2", std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = c}));
  mlp = register_module("mlp", std::make_shared<Part>(gpt_linear(c, 4 * c, std), "c_fc", gpt_linear(4 * c, c, residual)));
}

Gpt::Block::Part::Part(std::shared_ptr<nn::Linear> in, const char* in_name, std::shared_ptr<nn::Linear> out)
    : in(register_module(in_name, std::move(in))), out(register_module("c_proj", std::move(out))) {}

/// x (B, T, C). The residual is added in the projection's epilogue where no dropout stands between.
Tensor Gpt::Block::run(const Tensor& x, int layer, const Sequence& sequence) {
  const bool drops = dropout_p > 0 && is_training();
  const auto add_residual = [&](const Tensor& r, const Tensor& y, const nn::Linear& m) {
    return drops ? add(r, dropout(linear(y, m.weight, m.bias), dropout_p, true)) : linear_add(r, y, m.weight, m.bias);
  };
  const Tensor a = attend(attn->in->forward(ln_1->forward(x)), layer, sequence, drops ? dropout_p : 0);
  const Tensor h = add_residual(x, a, *attn->out);
  return add_residual(h, gelu(mlp->in->forward(ln_2->forward(h)), {.tanh = true}), *mlp->out);
}

/// qkv (B, T, 3 C) -> (B, T, C).
Tensor Gpt::Block::attend(const Tensor& qkv, int layer, const Sequence& sequence, double p) {
  if (!sequence.cache) return packed_attention(qkv, heads, {.is_causal = true, .dropout = p, .lengths = sequence.lengths});
  const auto b = qkv.size(0), t = qkv.size(1), c = qkv.size(2) / 3;
  const Tensor parts = qkv.reshape({b, t, 3, heads, c / heads});
  const auto part = [&](int i) { return parts.select(2, i).transpose(1, 2); };
  const auto [k, v] = sequence.cache->append(layer, part(1), part(2));
  return scaled_dot_product_attention(part(0), k, v, {.is_causal = true}).transpose(1, 2).reshape({b, t, c});
}

Gpt::Gpt(GptOptions o) : options_(o) {
  const auto require = [](bool good, const std::string& text) {
    if (!good) fail("Gpt", text);
  };
  require(o.vocab >= 1 && o.context >= 1 && o.layers >= 1 && o.heads >= 1 && o.width >= 1,
          fmt::format("vocab {}, context {}, layers {}, heads {}, width {} given, each 1 or more wanted", o.vocab, o.context, o.layers, o.heads,
                      o.width));
  require(o.width % o.heads == 0, fmt::format("{} heads do not divide width {}", o.heads, o.width));
  require(o.dropout >= 0 && o.dropout < 1, fmt::format("dropout {} given, 0 <= p < 1 wanted", o.dropout));
  wte_ = register_module("wte", std::make_shared<nn::Embedding>(nn::EmbeddingOptions{.num = o.vocab, .dim = o.width}));
  wpe_ = register_module("wpe", std::make_shared<nn::Embedding>(nn::EmbeddingOptions{.num = o.context, .dim = o.width}));
  {
    const GradMode off(false);
    copy_(wte_->weight, nn::normal({o.vocab, o.width}, 0.02));
    copy_(wpe_->weight, nn::normal({o.context, o.width}, 0.01));
  }
  mark_shared(wte_->weight);  // embedding and head
  drop_ = register_module("drop", std::make_shared<nn::Dropout>(nn::DropoutOptions{.p = o.dropout}));
  for (int i = 0; i < o.layers; ++i) blocks_.push_back(std::make_shared<Block>(o));
  register_module("h", std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>(blocks_.begin(), blocks_.end())));
  ln_f_ = register_module("ln_f", std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = o.width}));
  positions_ = arange(o.context, {.dtype = Dtype::i64});
}

Gpt::~Gpt() = default;

KvCache Gpt::make_cache(std::int64_t batch, std::int64_t capacity) const {
  return {options_.layers, batch, options_.heads, capacity, options_.width / options_.heads, computing_dtype(wte_->weight.dtype())};
}

Tensor Gpt::hidden(const Tensor& ids, const Sequence& s) {
  check_ids("Gpt", ids, s);
  const auto t = ids.size(1);
  const Tensor positions = s.cache || !s.lengths.empty() ? positions_of(t, s) : positions_.narrow(0, 0, t);
  const Tensor x = drop_->forward(add(wte_->forward(ids), wpe_->forward(positions)));
  const auto block = [blocks = blocks_, s](const Tensor& h, int i) { return blocks[static_cast<std::size_t>(i)]->run(h, i, s); };
  return ln_f_->forward(through_blocks(x, options_.layers, s, block));
}

}  // namespace mezzo::models
