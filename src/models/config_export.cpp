// config_export.cpp - a model's options as Hugging Face's config.json.
#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/json.h"
#include "models/llama_block.h"
#include "models/model_file.h"

namespace mezzo::models {
namespace {

io::Json config_of(const GptOptions& o) {
  return {
      {"architectures", {"GPT2LMHeadModel"}},
      {"model_type", "gpt2"},
      {"vocab_size", o.vocab},
      {"n_positions", o.context},
      {"n_ctx", o.context},
      {"n_embd", o.width},
      {"n_layer", o.layers},
      {"n_head", o.heads},
      {"activation_function", "gelu_new"},
      {"layer_norm_epsilon", 1e-5},
      {"resid_pdrop", o.dropout},
      {"embd_pdrop", o.dropout},
      {"attn_pdrop", o.dropout},
      {"tie_word_embeddings", true},
  };
}

/// Llama 3's rule for the factors that a GGUF file has instead of it. Error: of another rule.
RopeScaling llama3_of(const LlamaOptions& o) {
  RopeScaling r = o.rope_scaling;
  r.kind = RopeScaling::Kind::llama3;
  r.factor = *std::max_element(r.factors.begin(), r.factors.end());
  const auto given = std::exchange(r.factors, {});
  LlamaOptions plain = o, scaled = o;
  plain.rope_scaling = {};
  scaled.rope_scaling = r;
  const auto before = rope_frequencies(plain).to_vector(), after = rope_frequencies(scaled).to_vector();
  for (std::size_t i = 0; i < given.size(); ++i)
    if (!(std::abs(static_cast<double>(before[i]) / static_cast<double>(after[i]) - given[i]) <= 1e-3 * given[i]))
      fail("save_pretrained", "the factors of the model's rotary frequencies follow no rule that config.json can name", "write a GGUF file");
  return r;
}

io::Json config_of(const LlamaOptions& o) {
  io::Json scaling = nullptr;
  const RopeScaling r = o.rope_scaling.kind == RopeScaling::Kind::factors ? llama3_of(o) : o.rope_scaling;
  if (r.kind == RopeScaling::Kind::linear) scaling = {{"rope_type", "linear"}, {"factor", r.factor}};
  if (r.kind == RopeScaling::Kind::llama3)
    scaling = {{"rope_type", "llama3"},
               {"factor", r.factor},
               {"low_freq_factor", r.low_freq_factor},
               {"high_freq_factor", r.high_freq_factor},
               {"original_max_position_embeddings", static_cast<std::int64_t>(r.original_context)}};
  const char* type = o.qk_norm ? "qwen3" : o.qkv_bias ? "qwen2" : "llama";
  const char* architecture = o.qk_norm ? "Qwen3ForCausalLM" : o.qkv_bias ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
  return {
      {"architectures", {architecture}},
      {"model_type", type},
      {"vocab_size", o.vocab},
      {"max_position_embeddings", o.context},
      {"hidden_size", o.width},
      {"intermediate_size", o.ffn},
      {"num_hidden_layers", o.layers},
      {"num_attention_heads", o.heads},
      {"num_key_value_heads", o.kv_heads},
      {"head_dim", o.head_dim},
      {"hidden_act", "silu"},
      {"rms_norm_eps", o.norm_eps},
      {"rope_theta", o.rope_base},
      {"rope_scaling", scaling},
      {"attention_bias", false},
      {"mlp_bias", false},
      {"tie_word_embeddings", o.tied},
  };
}

}  // namespace

io::Json config_of(const ModelOptions& options) {
  return std::visit([](const auto& o) { return config_of(o); }, options);
}

ModelOptions options_of(const LanguageModel& model) {
  if (const auto* gpt = dynamic_cast<const Gpt*>(&model)) return gpt->options();
  if (const auto* llama = dynamic_cast<const Llama*>(&model)) return llama->options();
  fail("save_pretrained", "a model of another family given, Gpt or Llama wanted");
}

}  // namespace mezzo::models
