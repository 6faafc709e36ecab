// llama.cpp - Llama's model and its relatives: blocks, rotary frequencies.
#include <algorithm>
#include <cmath>
#include <numbers>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "models/llama_block.h"
#include "models/positions.h"

namespace mezzo::models {
namespace {

constexpr double kStd = 0.02;

std::shared_ptr<nn::RmsNorm> rms(const Maker& make, const std::string& path, std::int64_t dim, const LlamaOptions& o) {
  auto m = std::make_shared<nn::RmsNorm>(nn::RmsNormOptions{.dim = dim, .eps = o.norm_eps});
  const GradMode off(false);
  copy_(m->weight, make.vector(path + ".weight", dim, 1));
  return m;
}

LlamaOptions resolved(LlamaOptions o) {
  const auto require = [](bool good, const std::string& text) {
    if (!good) fail("Llama", text);
  };
  check_sizes("Llama", o);
  require(o.vocab >= 1 && o.context >= 1, fmt::format("vocab {}, context {} given, 1 or more of each wanted", o.vocab, o.context));
  if (o.kv_heads == 0) o.kv_heads = o.heads;
  require(o.kv_heads >= 1 && o.heads % o.kv_heads == 0, fmt::format("{} key heads for {} heads given, a divisor wanted", o.kv_heads, o.heads));
  if (o.head_dim == 0) {
    require(o.width % o.heads == 0, fmt::format("{} heads do not divide width {}", o.heads, o.width));
    o.head_dim = o.width / o.heads;
  }
  require(o.head_dim >= 2 && o.head_dim % 2 == 0,
          fmt::format("heads of size {} given, an even size wanted: rotary positions turn pairs", o.head_dim));
  if (o.ffn == 0) o.ffn = (o.width * 8 / 3 + 63) / 64 * 64;
  require(o.ffn >= 1, fmt::format("ffn {} given, 1 or more wanted", o.ffn));
  require(
      o.norm_eps > 0 && o.rope_base > 0 && o.rope_scaling.factor > 0,
      fmt::format("norm_eps {}, rope_base {}, a scaling factor of {} given, numbers above 0 wanted", o.norm_eps, o.rope_base, o.rope_scaling.factor));
  return o;
}

}  // namespace

/// base^(-2i / D) for i < D / 2, slowed down where a longer context is wanted. llama3: https://github.com/meta-llama/llama-models, `apply_scaling`:
/// waves longer than context / low turn `factor` times slower, those shorter than context / high as before, those between in proportion.
Tensor rope_frequencies(const LlamaOptions& o) {
  const auto half = o.head_dim / 2;
  std::vector<float> f(static_cast<std::size_t>(half));
  const RopeScaling& s = o.rope_scaling;
  for (std::int64_t i = 0; i < half; ++i) {
    double w = std::pow(o.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(o.head_dim));
    if (s.kind == RopeScaling::Kind::linear) w /= s.factor;
    if (s.kind == RopeScaling::Kind::factors) w /= s.factors[static_cast<std::size_t>(i)];
    if (s.kind == RopeScaling::Kind::llama3) {
      const double waves = s.original_context * w / (2 * std::numbers::pi);  // in the context
      const double share = std::clamp((waves - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
      w = (1 - share) * w / s.factor + share * w;
    }
    f[static_cast<std::size_t>(i)] = static_cast<float>(w);
  }
  return tensor(f, {half});
}

Llama::Block::Attention::Attention(const LlamaOptions& o, const Maker& make, const std::string& path)
    : heads(o.heads), kv_heads(o.kv_heads), head_dim(o.head_dim) {
  const auto project = [&](const char* name, std::int64_t in, std::int64_t out, bool bias, double std) {
    return register_module(name, std::make_shared<Projection>(make, path + '.' + name, in, out, bias, std));
  };
  q_proj = project("q_proj", o.width, heads * head_dim, o.qkv_bias, kStd);
  k_proj = project("k_proj", o.width, kv_heads * head_dim, o.qkv_bias, kStd);
  v_proj = project("v_proj", o.width, kv_heads * head_dim, o.qkv_bias, kStd);
  o_proj = project("o_proj", heads * head_dim, o.width, false, kStd / std::sqrt(2.0 * o.layers));
  if (!o.qk_norm) return;
  q_norm = register_module("q_norm", rms(make, path + ".q_norm", head_dim, o));
  k_norm = register_module("k_norm", rms(make, path + ".k_norm", head_dim, o));
}

Tensor Llama::Block::Attention::run(const Tensor& residual, const Tensor& x, int layer, const RopeOptions& turn, const Sequence& sequence) {
  const auto b = x.size(0), t = x.size(1);
  const auto split = [&](const Tensor& y, std::int64_t n) { return y.reshape({b, t, n, head_dim}); };  // (B, T, H, D)
  Tensor q = split(q_proj->forward(x), heads), k = split(k_proj->forward(x), kv_heads), v = split(v_proj->forward(x), kv_heads);
  if (q_norm) q = q_norm->forward(q), k = k_norm->forward(k);
  q = rope(q.transpose(1, 2), turn);
  k = rope(k.transpose(1, 2), turn);
  v = v.transpose(1, 2);
  if (sequence.cache) std::tie(k, v) = sequence.cache->append(layer, k, v);
  const Tensor a = scaled_dot_product_attention(q, k, v, {.is_causal = true, .lengths = sequence.lengths});  // (B, H, T, D), laid out as (B, T, H, D)
  return o_proj->run(a.transpose(1, 2).reshape({b, t, heads * head_dim}), residual);
}

Llama::Block::Ffn::Ffn(const LlamaOptions& o, const Maker& make, const std::string& path) {
  const auto project = [&](const char* name, std::int64_t in, std::int64_t out, double std) {
    return register_module(name, std::make_shared<Projection>(make, path + '.' + name, in, out, false, std));
  };
  gate_proj = project("gate_proj", o.width, o.ffn, kStd);
  up_proj = project("up_proj", o.width, o.ffn, kStd);
  down_proj = project("down_proj", o.ffn, o.width, kStd / std::sqrt(2.0 * o.layers));
}

Tensor Llama::Block::Ffn::run(const Tensor& residual, const Tensor& x) {
  return down_proj->run(swiglu(gate_proj->forward(x), up_proj->forward(x)), residual);
}

Llama::Block::Block(const LlamaOptions& o, const Maker& make, const std::string& path) {
  self_attn = register_module("self_attn", std::make_shared<Attention>(o, make, path + ".self_attn"));
  mlp = register_module("mlp", std::make_shared<Ffn>(o, make, path + ".mlp"));
  input_layernorm = register_module("input_layernorm", rms(make, path + ".input_layernorm", o.width, o));
  post_attention_layernorm = register_module("post_attention_layernorm", rms(make, path + ".post_attention_layernorm", o.width, o));
}

/// x (B, T, C).
Tensor Llama::Block::run(const Tensor& x, int layer, const RopeOptions& turn, const Sequence& sequence) {
  const Tensor h = self_attn->run(x, input_layernorm->forward(x), layer, turn, sequence);
  return mlp->run(h, post_attention_layernorm->forward(h));
}

Llama::Body::Body(const LlamaOptions& o, const Maker& make) {
  embed_tokens = register_module("embed_tokens", std::make_shared<Table>(make, "model.embed_tokens", o.vocab, o.width, kStd));
  if (o.tied && embed_tokens->weight.defined()) mark_shared(embed_tokens->weight);  // embedding and head
  for (int i = 0; i < o.layers; ++i) layers.push_back(std::make_shared<Block>(o, make, fmt::format("model.layers.{}", i)));
  register_module("layers", std::make_shared<nn::Sequential>(std::vector<std::shared_ptr<nn::Module>>(layers.begin(), layers.end())));
  norm = register_module("norm", rms(make, "model.norm", o.width, o));
  inv_freq = rope_frequencies(o);
}

Llama::Llama(LlamaOptions o) : Llama(std::move(o), Maker()) {}
Llama::Llama(LlamaOptions o, const Maker& make) : options_(resolved(std::move(o))) {
  body_ = register_module("model", std::make_shared<Body>(options_, make));
  if (options_.tied) return;
  lm_head_ = register_module("lm_head", std::make_shared<Table>(make, "lm_head", options_.vocab, options_.width, kStd));
}

Llama::~Llama() = default;

Tensor Llama::head() const { return (lm_head_ ? lm_head_ : body_->embed_tokens)->dense(); }
Tensor Llama::project(const Tensor& h) const { return (lm_head_ ? lm_head_ : body_->embed_tokens)->project(h); }

KvCache Llama::make_cache(std::int64_t batch, std::int64_t capacity) const {
  return {options_.layers, batch, options_.kv_heads, capacity, options_.head_dim, computing_dtype(body_->embed_tokens->dtype())};
}

Tensor Llama::hidden(const Tensor& ids, const Sequence& s) {
  check_ids("Llama", ids, s);
  const RopeOptions turn{.positions = positions_of(ids.size(1), s), .inv_freq = body_->inv_freq};
  const auto block = [body = body_, turn, s](const Tensor& x, int i) { return body->layers[static_cast<std::size_t>(i)]->run(x, i, turn, s); };
  return body_->norm->forward(through_blocks(body_->embed_tokens->forward(ids), options_.layers, s, block));
}

}  // namespace mezzo::models
