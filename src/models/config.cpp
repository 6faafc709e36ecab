// config.cpp - Hugging Face's config.json, in and out.
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

constexpr const char* kOp = "load_pretrained";

std::int64_t integer(const io::Json& j, const char* key, const std::filesystem::path& file) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number_integer()) fail(kOp, fmt::format("{}: `{}` is missing or not an integer", file.string(), key));
  return it->get<std::int64_t>();
}

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

GptOptions gpt_from_config(const io::Json& j, const std::filesystem::path& file) {
  GptOptions o;
  o.vocab = integer(j, "vocab_size", file);
  o.context = integer(j, "n_positions", file);
  o.width = integer(j, "n_embd", file);
  o.layers = static_cast<int>(integer(j, "n_layer", file));
  o.heads = static_cast<int>(integer(j, "n_head", file));
  if (const auto it = j.find("resid_pdrop"); it != j.end() && it->is_number()) o.dropout = it->get<double>();
  return o;
}

double number_or(const io::Json& j, const char* key, double otherwise) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number() ? it->get<double>() : otherwise;
}
bool flag_or(const io::Json& j, const char* key, bool otherwise) {
  const auto it = j.find(key);
  return it != j.end() && it->is_boolean() ? it->get<bool>() : otherwise;
}

RopeScaling scaling_of(const io::Json& j, const std::filesystem::path& file) {
  const auto it = j.find("rope_scaling");
  if (it == j.end() || it->is_null()) return {};
  const std::string type = it->is_object() ? it->value("rope_type", it->value("type", std::string())) : std::string();
  RopeScaling r;
  if (type == "default") return r;
  if (type == "linear") r.kind = RopeScaling::Kind::linear;
  else if (type == "llama3") r.kind = RopeScaling::Kind::llama3;
  else fail(kOp, fmt::format("{}: rope_scaling is {}, of the types linear and llama3 one wanted", file.string(), io::to_text(*it)));
  r.factor = number_or(*it, "factor", 1);
  r.low_freq_factor = number_or(*it, "low_freq_factor", r.low_freq_factor);
  r.high_freq_factor = number_or(*it, "high_freq_factor", r.high_freq_factor);
  r.original_context = number_or(*it, "original_max_position_embeddings", r.original_context);
  return r;
}

LlamaOptions llama_from_config(const io::Json& j, const std::string& type, const std::filesystem::path& file) {
  LlamaOptions o;
  o.vocab = integer(j, "vocab_size", file);
  o.context = integer(j, "max_position_embeddings", file);
  o.width = integer(j, "hidden_size", file);
  o.ffn = integer(j, "intermediate_size", file);
  o.layers = static_cast<int>(integer(j, "num_hidden_layers", file));
  o.heads = static_cast<int>(integer(j, "num_attention_heads", file));
  o.kv_heads = static_cast<int>(number_or(j, "num_key_value_heads", o.heads));
  o.head_dim = static_cast<std::int64_t>(number_or(j, "head_dim", 0));
  o.norm_eps = number_or(j, "rms_norm_eps", 1e-6);
  o.rope_base = number_or(j, "rope_theta", 10000);
  o.rope_scaling = scaling_of(j, file);
  o.tied = flag_or(j, "tie_word_embeddings", false);
  o.qkv_bias = type == "qwen2";
  o.qk_norm = type == "qwen3";
  if (flag_or(j, "attention_bias", false) || flag_or(j, "mlp_bias", false))
    fail(kOp, fmt::format("{}: attention_bias or mlp_bias is true, which no model of these families has", file.string()));
  const auto act = j.value("hidden_act", std::string("silu"));
  if (act != "silu") fail(kOp, fmt::format("{}: hidden_act is {}, silu wanted", file.string(), act));
  return o;
}

}  // namespace

ModelOptions options_from_config(const std::filesystem::path& file) {
  const io::Json j = io::read_json(file);
  const auto it = j.find("model_type");
  const std::string type = it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
  if (type == "gpt2") return gpt_from_config(j, file);
  if (type == "llama" || type == "mistral" || type == "qwen2" || type == "qwen3") return llama_from_config(j, type, file);
  fail(kOp, fmt::format("{}: model_type is {}, one of gpt2, llama, mistral, qwen2, qwen3 wanted", file.string(),
                        it == j.end() ? "missing" : io::to_text(*it)));
}

io::Json config_of(const ModelOptions& options) {
  return std::visit([](const auto& o) { return config_of(o); }, options);
}

ModelOptions options_of(const LanguageModel& model) {
  if (const auto* gpt = dynamic_cast<const Gpt*>(&model)) return gpt->options();
  if (const auto* llama = dynamic_cast<const Llama*>(&model)) return llama->options();
  fail("save_pretrained", "a model of another family given, Gpt or Llama wanted");
}

}  // namespace mezzo::models
