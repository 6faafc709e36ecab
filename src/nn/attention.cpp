// attention.cpp - nn::Attention: four projections around scaled_dot_product_attention. Heads stay views of what the projections wrote.
#include <mezzo/nn.h>

#include "core/fail.h"
#include "nn/init.h"
#include "tensor/impl.h"

namespace mezzo::nn {
namespace {

constexpr const char* kName = "Attention";

void check_input(const Tensor& t, const char* what, const char* shape, std::int64_t dim) {
  require_defined(kName, t, what);
  if (t.dim() != 3 || t.size(2) != dim)
    fail(kName, fmt::format("{} has shape {}, ({}, {}) wanted", what, to_string(t.shape()), shape, dim),
         t.dim() == 2 && t.size(1) == dim ? "give a single sequence a batch of one with unsqueeze(0)" : "the last dimension is the module's .dim");
}

/// Whether t broadcasts to `to` without widening it.
bool fits(const Tensor& t, const Shape& to) {
  const int n = static_cast<int>(to.size());
  if (t.dim() > n) return false;
  for (int i = 1; i <= t.dim(); ++i)
    if (t.size(-i) != 1 && t.size(-i) != to[static_cast<std::size_t>(n - i)]) return false;
  return true;
}

}  // namespace

Attention::Attention(AttentionOptions o) : options_(o) {
  require_size(kName, "dim", o.dim);
  require_size(kName, "heads", o.heads);
  if (o.kv_heads < 0) fail(kName, fmt::format(".kv_heads = {} given, 0 (as many as heads) or more wanted", o.kv_heads));
  if (o.kv_heads == 0) options_.kv_heads = o.heads;
  if (o.dim % o.heads != 0)
    fail(kName, fmt::format(".dim = {} for .heads = {} given, a multiple of the heads wanted", o.dim, o.heads),
         "every head has dim / heads elements");
  if (o.heads % options_.kv_heads != 0)
    fail(kName, fmt::format(".heads = {} for .kv_heads = {} given, a multiple of the key heads wanted", o.heads, o.kv_heads),
         "every key head serves heads / kv_heads query heads");
  if (!(o.dropout >= 0 && o.dropout < 1))
    fail(kName, fmt::format(".dropout = {} given, 0 <= dropout < 1 wanted", o.dropout), "it is the share of probabilities that training drops");
  const std::int64_t kv_width = o.dim / o.heads * options_.kv_heads;
  const auto project = [&](const char* name, std::int64_t out) {
    return register_module(name, std::make_shared<Linear>(LinearOptions{.in = o.dim, .out = out, .bias = o.bias}));
  };
  q_proj = project("q_proj", o.dim);
  k_proj = project("k_proj", kv_width);
  v_proj = project("v_proj", kv_width);
  out_proj = project("out_proj", o.dim);
}

Tensor Attention::forward(const Tensor& x) {
  check_input(x, "x", "B, T", options_.dim);
  return forward(x, x, x, {});
}

Tensor Attention::forward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask) {
  check_input(query, "the query", "B, Tq", options_.dim);
  check_input(key, "the key", "B, Tk", options_.dim);
  check_input(value, "the value", "B, Tk", options_.dim);
  const auto b = query.size(0), tq = query.size(1), tk = key.size(1);
  if (key.size(0) != b || value.shape() != key.shape())
    fail(kName, fmt::format("query {}, key {}, value {} given", to_string(query.shape()), to_string(key.shape()), to_string(value.shape())),
         "all three have one batch; key and value have one length");
  const Shape scores{b, options_.heads, tq, tk};
  if (mask.defined() && !fits(mask, scores))
    fail(kName, fmt::format("the mask has shape {}, one that broadcasts to {} wanted", to_string(mask.shape()), to_string(scores)),
         "(B, heads, Tq, Tk): reshape a mask of keys to {B, 1, 1, Tk}, one of pairs to {B, 1, Tq, Tk}");

  const auto heads_of = [&](const Tensor& y, std::int64_t heads) {  // (B, T, heads D) -> (B, heads, T, D)
    return y.reshape({b, y.size(1), heads, options_.dim / options_.heads}).transpose(1, 2);
  };
  const Tensor y = scaled_dot_product_attention(
      heads_of(q_proj->forward(query), options_.heads), heads_of(k_proj->forward(key), options_.kv_heads),
      heads_of(v_proj->forward(value), options_.kv_heads),
      {.is_causal = options_.causal, .mask = mask, .dropout = is_training() ? options_.dropout : 0});  // (B, H, Tq, D), laid out as (B, Tq, H, D)
  return out_proj->forward(y.transpose(1, 2).reshape({b, tq, options_.dim}));
}

}  // namespace mezzo::nn
