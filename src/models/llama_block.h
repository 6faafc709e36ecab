// llama_block.h - one block of Llama: grouped-query attention with rotary positions, SwiGLU, RMS norms.
#pragma once

#include <mezzo/models.h>

#include "models/projection.h"
#include "models/table.h"

namespace mezzo::models {

/// (D / 2) f32: what the position is multiplied with for each pair of a head's elements.
Tensor rope_frequencies(const LlamaOptions&);

struct Llama::Block final : nn::Module {
  struct Attention final : nn::Module {
    Attention(const LlamaOptions&, const Maker&, const std::string& path);
    /// x (B, T, C) -> residual + attention's output.
    Tensor run(const Tensor& residual, const Tensor& x, int layer, const RopeOptions&, const Sequence&);
    std::shared_ptr<Projection> q_proj, k_proj, v_proj, o_proj;
    std::shared_ptr<nn::RmsNorm> q_norm, k_norm;  // null unless qk_norm
    std::int64_t heads, kv_heads, head_dim;
  };
  struct Ffn final : nn::Module {
    Ffn(const LlamaOptions&, const Maker&, const std::string& path);
    Tensor run(const Tensor& residual, const Tensor& x);
    std::shared_ptr<Projection> gate_proj, up_proj, down_proj;
  };
  Block(const LlamaOptions&, const Maker&, const std::string& path);
  Tensor run(const Tensor& x, int layer, const RopeOptions&, const Sequence&);

  std::shared_ptr<nn::RmsNorm> input_layernorm, post_attention_layernorm;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Ffn> mlp;
};

/// What Hugging Face calls `model`: everything but the head.
struct Llama::Body final : nn::Module {
  Body(const LlamaOptions&, const Maker&);
  std::shared_ptr<Table> embed_tokens;
  std::vector<std::shared_ptr<Block>> layers;
  std::shared_ptr<nn::RmsNorm> norm;
  Tensor inv_freq;  // (D / 2) f32
};

}  // namespace mezzo::models
