// config.cpp - the options of a model from Hugging Face's config.json.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/json.h"
#include "io/shown.h"
#include "models/model_file.h"

namespace mezzo::models {
namespace {

constexpr const char* kOp = "load_pretrained";

/// The members of an object, each of one type; null counts as missing, anything else of another type is an Error.
class Members {
 public:
  Members(const io::Json& object, std::string source, std::string prefix = {})
      : object_(object), source_(std::move(source)), prefix_(std::move(prefix)) {}

  const std::string& source() const { return source_; }
  const io::Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  /// From 1 on.
  template <class Int> Int count(const char* key) const {
    const auto* value = find(key);
    if (!value) fail(kOp, fmt::format("{}: {}{} is missing", source_, prefix_, key));
    return checked<Int>(key, *value);
  }
  template <class Int> Int count(const char* key, Int otherwise) const {
    const auto* value = find(key);
    return value ? checked<Int>(key, *value) : otherwise;
  }
  double number(const char* key, double otherwise) const {
    const auto* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>())) wrong(key, *value, "a number");
    return value->get<double>();
  }
  bool flag(const char* key, bool otherwise) const {
    const auto* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) wrong(key, *value, "true or false");
    return value->get<bool>();
  }
  std::string text(const char* key, std::string otherwise) const {
    const auto* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) wrong(key, *value, "a text");
    return value->get<std::string>();
  }
  [[noreturn]] void wrong(const char* key, const io::Json& value, const std::string& wanted) const {
    fail(kOp, fmt::format("{}: {}{} is {}, {} wanted", source_, prefix_, key,
                          value.is_structured() ? value.type_name() : io::shown(io::to_text(value)), wanted));
  }

 private:
  template <class Int> Int checked(const char* key, const io::Json& value) const {
    constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<Int>::max());
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < 1 || value.get<std::uint64_t>() > most)
      wrong(key, value, "a whole number from 1 on");
    return value.get<Int>();
  }

  const io::Json& object_;
  std::string source_, prefix_;
};

GptOptions gpt_from_config(const Members& m) {
  GptOptions o;
  o.vocab = m.count<std::int64_t>("vocab_size");
  o.context = m.count<std::int64_t>("n_positions");
  o.width = m.count<std::int64_t>("n_embd");
  o.layers = m.count<int>("n_layer");
  o.heads = m.count<int>("n_head");
  o.dropout = m.number("resid_pdrop", o.dropout);
  const auto only = [&](bool holds, const char* key, const char* wanted) {
    if (!holds) m.wrong(key, *m.find(key), wanted);
  };
  const auto activation = m.text("activation_function", "gelu_new");
  only(activation == "gelu_new" || activation == "gelu_pytorch_tanh", "activation_function", "gelu_new");
  only(m.number("layer_norm_epsilon", 1e-5) == 1e-5, "layer_norm_epsilon", "1e-05");
  only(m.flag("scale_attn_weights", true), "scale_attn_weights", "true");
  only(!m.flag("scale_attn_by_inverse_layer_idx", false), "scale_attn_by_inverse_layer_idx", "false");
  only(m.flag("tie_word_embeddings", true), "tie_word_embeddings", "true");
  return o;
}

/// rope_theta and rope_scaling, or rope_parameters, which is both in one (transformers 5).
void read_rotary(const Members& config, LlamaOptions& o) {
  const char* key = config.find("rope_parameters") ? "rope_parameters" : "rope_scaling";
  o.rope_base = config.number("rope_theta", 10000);
  const auto turned = [](const Members& m) {
    if (m.number("partial_rotary_factor", 1) != 1) m.wrong("partial_rotary_factor", *m.find("partial_rotary_factor"), "1");
  };
  turned(config);
  const io::Json* value = config.find(key);
  if (!value) return;
  if (!value->is_object()) config.wrong(key, *value, "an object");
  const Members m(*value, config.source(), std::string(key) + ".");
  turned(m);
  o.rope_base = m.number("rope_theta", o.rope_base);
  RopeScaling& r = o.rope_scaling;
  const std::string type = m.text("rope_type", m.text("type", m.find("rope_theta") ? "default" : ""));
  if (type == "default") return;
  if (type == "linear") r.kind = RopeScaling::Kind::linear;
  else if (type == "llama3") r.kind = RopeScaling::Kind::llama3;
  else fail(kOp, fmt::format("{}: {} is of type `{}`, linear or llama3 wanted", m.source(), key, io::shown(type)));
  r.factor = m.number("factor", 1);
  r.low_freq_factor = m.number("low_freq_factor", r.low_freq_factor);
  r.high_freq_factor = m.number("high_freq_factor", r.high_freq_factor);
  r.original_context = m.number("original_max_position_embeddings", r.original_context);
}

/// The last tokens that a token sees; the context without a window.
std::int64_t window_of(const Members& m, std::string_view type, std::int64_t context) {
  if (type == "llama" || (type != "mistral" && !m.flag("use_sliding_window", false))) return context;
  return m.count<std::int64_t>("sliding_window", context);
}

LlamaOptions llama_from_config(const Members& m, std::string_view type) {
  LlamaOptions o;
  o.vocab = m.count<std::int64_t>("vocab_size");
  o.context = m.count<std::int64_t>("max_position_embeddings");
  o.width = m.count<std::int64_t>("hidden_size");
  o.ffn = m.count<std::int64_t>("intermediate_size");
  o.layers = m.count<int>("num_hidden_layers");
  o.heads = m.count<int>("num_attention_heads");
  o.kv_heads = m.count<int>("num_key_value_heads", o.heads);
  o.head_dim = m.count<std::int64_t>("head_dim", 0);
  o.norm_eps = m.number("rms_norm_eps", 1e-6);
  read_rotary(m, o);
  o.context = std::min(o.context, window_of(m, type, o.context));  // within it a sliding window changes nothing; beyond it there is none here
  o.tied = m.flag("tie_word_embeddings", false);
  o.qkv_bias = type == "qwen2";
  o.qk_norm = type == "qwen3";
  if (m.flag("attention_bias", false) || m.flag("mlp_bias", false))
    fail(kOp, fmt::format("{}: attention_bias or mlp_bias is true, which no model of these families has", m.source()));
  if (const auto act = m.text("hidden_act", "silu"); act != "silu")
    fail(kOp, fmt::format("{}: hidden_act is {}, silu wanted", m.source(), io::shown(act)));
  return o;
}

}  // namespace

ModelOptions options_from_config(const std::filesystem::path& file) { return options_from_config(io::read_json(file), file.string()); }

ModelOptions options_from_config(const io::Json& config, const std::string& source) {
  if (!config.is_object()) fail(kOp, fmt::format("{}: {} given, an object wanted", source, config.type_name()));
  const Members m(config, source);
  if (const auto* quantized = m.find("quantization_config")) {
    if (!quantized->is_object()) m.wrong("quantization_config", *quantized, "an object");
    fail(kOp,
         fmt::format("{}: its weights are quantized ({}), which is read of GGUF files only", source,
                     io::shown(Members(*quantized, source, "quantization_config.").text("quant_method", "quantization_config"))),
         "the model's own 16-bit weights, or a GGUF file of it");
  }
  const std::string type = m.text("model_type", "");
  if (type == "gpt2") return gpt_from_config(m);
  if (type == "llama" || type == "mistral" || type == "qwen2" || type == "qwen3") return llama_from_config(m, type);
  fail(kOp,
       fmt::format("{}: model_type is {}, one of gpt2, llama, mistral, qwen2, qwen3 wanted", source, type.empty() ? "missing" : io::shown(type)));
}

}  // namespace mezzo::models
