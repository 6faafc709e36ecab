// gguf_names.cpp - GGUF's metadata and tensor names as models here have them.
#include <algorithm>
#include <array>

#include "core/fail.h"
#include "models/model_file.h"

namespace mezzo::models {
namespace {

constexpr const char* kOp = "load_model";

struct Pair {
  std::string_view gguf, ours;
};
constexpr std::array<Pair, 3> kLlama{{{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}}};
constexpr std::array<Pair, 11> kLlamaBlock{{{"attn_norm", "input_layernorm"},
                                            {"attn_q", "self_attn.q_proj"},
                                            {"attn_k", "self_attn.k_proj"},
                                            {"attn_v", "self_attn.v_proj"},
                                            {"attn_output", "self_attn.o_proj"},
                                            {"attn_q_norm", "self_attn.q_norm"},
                                            {"attn_k_norm", "self_attn.k_norm"},
                                            {"ffn_norm", "post_attention_layernorm"},
                                            {"ffn_gate", "mlp.gate_proj"},
                                            {"ffn_up", "mlp.up_proj"},
                                            {"ffn_down", "mlp.down_proj"}}};
constexpr std::array<Pair, 4> kGpt{{{"token_embd", "wte"}, {"position_embd", "wpe"}, {"output_norm", "ln_f"}, {"output", ""}}};
constexpr std::array<Pair, 6> kGptBlock{{{"attn_norm", "ln_1"},
                                         {"attn_qkv", "attn.c_attn"},
                                         {"attn_output", "attn.c_proj"},
                                         {"ffn_norm", "ln_2"},
                                         {"ffn_up", "mlp.c_fc"},
                                         {"ffn_down", "mlp.c_proj"}}};

template <std::size_t N> const Pair* find(const std::array<Pair, N>& table, std::string_view name) {
  for (const auto& p : table)
    if (p.gguf == name) return &p;
  return nullptr;
}

}  // namespace

std::string parameter_of_gguf(const std::string& tensor, const ModelOptions& options, const std::filesystem::path& file) {
  const auto unknown = [&]() -> std::string {
    fail(kOp, fmt::format("{}: the tensor `{}` belongs to no model of the family {}", file.native(), tensor, family(options)),
         "its weights would be ignored, so the model would not be what the file holds");
  };
  const bool gpt = std::holds_alternative<GptOptions>(options);
  if (tensor == "rope_freqs.weight") return {};
  const auto dot = tensor.rfind('.');
  if (dot == tensor.npos) return unknown();
  std::string_view base = std::string_view(tensor).substr(0, dot);
  const std::string end = tensor.substr(dot);  // ".weight", ".bias"
  if (end != ".weight" && end != ".bias") return unknown();
  std::string block;
  if (base.substr(0, 4) == "blk.") {
    const auto after = base.find('.', 4);
    if (after == base.npos) return unknown();
    block = std::string(base.substr(4, after - 4));
    base = base.substr(after + 1);
    const Pair* p = gpt ? find(kGptBlock, base) : find(kLlamaBlock, base);
    if (!p) return unknown();
    return (gpt ? "h." : "model.layers.") + block + '.' + std::string(p->ours) + end;
  }
  const Pair* p = gpt ? find(kGpt, base) : find(kLlama, base);
  if (!p) return unknown();
  return p->ours.empty() ? std::string() : std::string(p->ours) + end;
}

std::string gguf_of_parameter(const std::string& parameter, const ModelOptions& options) {
  const bool gpt = std::holds_alternative<GptOptions>(options);
  const auto dot = parameter.rfind('.');
  const std::string end = parameter.substr(dot);
  std::string_view base = std::string_view(parameter).substr(0, dot);
  std::string block;
  const std::string_view blocks = gpt ? "h." : "model.layers.";
  if (base.starts_with(blocks)) {
    base.remove_prefix(blocks.size());
    const auto after = base.find('.');
    block = fmt::format("blk.{}.", base.substr(0, after));
    base.remove_prefix(after + 1);
  }
  const auto named = [&](const auto& table) {
    const auto it = std::find_if(table.begin(), table.end(), [&](const Pair& p) { return p.ours == base; });
    MEZZO_CHECK(it != table.end());
    return block + std::string(it->gguf) + end;
  };
  if (gpt) return block.empty() ? named(kGpt) : named(kGptBlock);
  return block.empty() ? named(kLlama) : named(kLlamaBlock);
}

std::string_view gguf_architecture(const ModelOptions& options) {
  const auto* llama = std::get_if<LlamaOptions>(&options);
  return !llama ? "gpt2" : llama->qk_norm ? "qwen3" : llama->qkv_bias ? "qwen2" : "llama";
}

bool in_pairs(std::string_view parameter) { return parameter.ends_with("q_proj.weight") || parameter.ends_with("k_proj.weight"); }

ModelOptions options_from_gguf(const io::GgufFile& f) {
  const std::string arch(f.string("general.architecture"));
  const auto key = [&](const char* rest) { return arch + "." + rest; };
  const auto* table = f.tensor("token_embd.weight");
  if (!table || table->shape.size() != 2) fail(kOp, fmt::format("{}: it has no matrix token_embd.weight", f.path().native()));
  if (arch == "gpt2") {
    constexpr float kEps = 1e-5f;
    if (const double eps = f.number_or(key("attention.layer_norm_epsilon"), kEps); static_cast<float>(eps) != kEps)
      fail(kOp, fmt::format("{}: attention.layer_norm_epsilon is {}, 1e-05 wanted", f.path().native(), static_cast<float>(eps)));
    GptOptions o;
    o.vocab = table->shape[0];
    o.context = f.integer(key("context_length"));
    o.width = f.integer(key("embedding_length"));
    o.layers = static_cast<int>(f.integer(key("block_count")));
    o.heads = static_cast<int>(f.integer(key("attention.head_count")));
    return o;
  }
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3")
    fail(kOp, fmt::format("{}: its architecture is `{}`, one of llama, qwen2, qwen3, gpt2 wanted", f.path().native(), arch));
  LlamaOptions o;
  o.vocab = table->shape[0];
  o.context = f.integer(key("context_length"));
  o.width = f.integer(key("embedding_length"));
  o.layers = static_cast<int>(f.integer(key("block_count")));
  o.ffn = f.integer(key("feed_forward_length"));
  o.heads = static_cast<int>(f.integer(key("attention.head_count")));
  o.kv_heads = static_cast<int>(f.integer_or(key("attention.head_count_kv"), o.heads));
  o.head_dim = f.integer_or(key("attention.key_length"), o.heads > 0 ? o.width / o.heads : 0);
  o.norm_eps = f.number_or(key("attention.layer_norm_rms_epsilon"), 1e-5);
  o.rope_base = f.number_or(key("rope.freq_base"), 10000);
  if (const auto turned = f.integer_or(key("rope.dimension_count"), o.head_dim); turned != o.head_dim)
    fail(kOp, fmt::format("{}: {} of the {} elements of a head are turned, all wanted", f.path().native(), turned, o.head_dim));
  if (const auto* type = f.field(key("rope.scaling.type")); type && type->string().value_or("") != "none") {
    if (type->string().value_or("") != "linear")
      fail(kOp, fmt::format("{}: rope.scaling.type is `{}`, none or linear wanted", f.path().native(), type->string().value_or("")));
    o.rope_scaling.kind = RopeScaling::Kind::linear;
    o.rope_scaling.factor = f.number_or(key("rope.scaling.factor"), 1);
  }
  if (const auto* factors = f.tensor("rope_freqs.weight")) {
    o.rope_scaling.kind = RopeScaling::Kind::factors;
    std::vector<float> v(static_cast<std::size_t>(o.head_dim / 2));
    if (factors->shape != std::vector<std::int64_t>{o.head_dim / 2})
      fail(kOp, fmt::format("{}: rope_freqs.weight is misshapen, ({},) wanted", f.path().native(), o.head_dim / 2));
    io::decode(factors->encoding, factors->data.data(), Dtype::f32, v.data(), o.head_dim / 2);
    o.rope_scaling.factors.assign(v.begin(), v.end());
  }
  o.tied = f.tensor("output.weight") == nullptr;
  o.qkv_bias = f.tensor("blk.0.attn_q.bias") != nullptr;
  o.qk_norm = f.tensor("blk.0.attn_q_norm.weight") != nullptr;
  return o;
}

}  // namespace mezzo::models
