// gpt.cpp - GPT-2's model: blocks, loss.
#include <cmath>

#include <mezzo/models.h>

#include <mezzo/random.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "models/gpt_block.h"
#include "models/positions.h"
#include "models/table.h"

namespace mezzo::models {
namespace {

constexpr double kStd = 0.02;

/// Weights that are drawn stand behind as many numbers as nn::Linear and nn::Embedding draw for themselves: a seed's first weights are then the same
/// in every version.
void pass_over(const Maker& make, std::int64_t numbers) {
  if (make.is_random()) default_generator().reserve(static_cast<std::uint64_t>((numbers + 3) / 4));
}

std::shared_ptr<nn::LayerNorm> layer_norm(const Maker& make, const std::string& path, std::int64_t dim) {
  auto m = std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = dim});
  const GradMode off(false);
  copy_(m->weight, make.vector(path + ".weight", dim, 1));
  copy_(m->bias, make.vector(path + ".bias", dim, 0));
  return m;
}

/// GPT-2's initialisation: normal weights, zero biases.
std::shared_ptr<Projection> gpt_linear(const Maker& make, const std::string& path, std::int64_t in, std::int64_t out, double std) {
  pass_over(make, out * in);
  pass_over(make, out);
  return std::make_shared<Projection>(make, path, in, out, true, std);
}

}  // namespace

Gpt::Block::Block(const GptOptions& o, const Maker& make, const std::string& path) : heads(o.heads), dropout_p(o.dropout) {
  ln_1 = register_module("ln_1", layer_norm(make, path + ".ln_1", o.width));
  attn = register_module("attn", std::make_shared<Part>(o, make, path + ".attn", "c_attn", 3 * o.width, o.width));
  ln_2 = register_module("ln_2", layer_norm(make, path + ".ln_2", o.width));
  mlp = register_module("mlp", std::make_shared<Part>(o, make, path + ".mlp", "c_fc", 4 * o.width, 4 * o.width));
}

Gpt::Block::Part::Part(const GptOptions& o, const Maker& make, const std::string& path, const char* in_name, std::int64_t inner, std::int64_t back) {
  auto second = gpt_linear(make, path + ".c_proj", back, o.width, kStd / std::sqrt(2.0 * o.layers));  // drawn first
  in = register_module(in_name, gpt_linear(make, path + '.' + in_name, o.width, inner, kStd));
  out = register_module("c_proj", std::move(second));
}

/// x (B, T, C). The residual is added in the projection's epilogue where no dropout stands between.
Tensor Gpt::Block::run(const Tensor& x, int layer, const Sequence& sequence) {
  const bool drops = dropout_p > 0 && is_training();
  const auto add_residual = [&](const Tensor& r, const Tensor& y, Projection& m) {
    return drops ? add(r, dropout(m.forward(y), dropout_p, true)) : m.run(y, r);
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

Gpt::Gpt(GptOptions o) : Gpt(o, Maker()) {}
Gpt::Gpt(GptOptions o, const Maker& make) : options_(o) {
  o.dropout = make.dropout().value_or(o.dropout);
  const auto require = [](bool good, const std::string& text) {
    if (!good) fail("Gpt", text);
  };
  check_sizes("Gpt", o);
  require(o.vocab >= 1 && o.context >= 1, fmt::format("vocab {}, context {} given, 1 or more of each wanted", o.vocab, o.context));
  require(o.width % o.heads == 0, fmt::format("{} heads do not divide width {}", o.heads, o.width));
  require(o.dropout >= 0 && o.dropout < 1, fmt::format("dropout {} given, 0 <= p < 1 wanted", o.dropout));
  pass_over(make, o.vocab * o.width);
  pass_over(make, o.context * o.width);
  wte_ = register_module("wte", std::make_shared<Table>(make, "wte", o.vocab, o.width, kStd));
  wpe_ = register_module("wpe", std::make_shared<nn::Embedding>(make.matrix("wpe.weight", o.context, o.width, 0.01)));
  if (wte_->weight.defined()) mark_shared(wte_->weight);  // embedding and head
  drop_ = register_module("drop", std::make_shared<nn::Dropout>(nn::DropoutOptions{.p = o.dropout}));
  for (int i = 0; i < o.layers; ++i) blocks_.push_back(std::make_shared<Block>(o, make, fmt::format("h.{}", i)));
  register_module("h", std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>(blocks_.begin(), blocks_.end())));
  ln_f_ = register_module("ln_f", layer_norm(make, "ln_f", o.width));
  positions_ = arange(o.context, {.dtype = Dtype::i64});
}

Gpt::~Gpt() = default;

Tensor Gpt::head() const { return wte_->dense(); }
Tensor Gpt::project(const Tensor& h) const { return wte_->project(h); }

KvCache Gpt::make_cache(std::int64_t batch, std::int64_t capacity) const {
  return {options_.layers, batch, options_.heads, capacity, options_.width / options_.heads, computing_dtype(wte_->dtype())};
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
