// pretrained.cpp - models to and from Hugging Face's directory layout.
#include <nlohmann/json.hpp>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/json.h"
#include "models/model_file.h"
#include "models/maker.h"

namespace mezzo::models {
namespace {

constexpr const char* kOp = "load_pretrained";

std::int64_t integer(const io::Json& j, const char* key, const std::filesystem::path& file) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number_integer()) fail(kOp, fmt::format("{}: `{}` is missing or not an integer", file.string(), key));
  return it->get<std::int64_t>();
}

const char* torch_name(Dtype t) { return t == Dtype::bf16 ? "bfloat16" : t == Dtype::f16 ? "float16" : "float32"; }

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

io::Json config_of(const LlamaOptions& o) {
  io::Json scaling = nullptr;
  const RopeScaling& r = o.rope_scaling;
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

void save_pretrained(const LanguageModel& model, const std::filesystem::path& dir) {
  std::filesystem::create_directories(dir);
  const GradMode off(false);
  const auto* gpt = dynamic_cast<const Gpt*>(&model);
  const auto* llama = dynamic_cast<const Llama*>(&model);
  if (!gpt && !llama) fail("save_pretrained", "a model of another family given, Gpt or Llama wanted");
  StateDict out;
  for (const auto& [path, t] : model.named_parameters()) {
    if (gpt) out.emplace_back("transformer." + path, is_conv1d(path) ? t.transpose(0, 1) : t);
    else out.emplace_back(path, t);
  }
  io::Json config = gpt ? config_of(gpt->options()) : config_of(llama->options());
  if (!out.empty()) config["torch_dtype"] = torch_name(out[0].second.dtype());
  save(out, dir / "model.safetensors");
  io::write_json(dir / "config.json", config);
}

std::shared_ptr<LanguageModel> load_pretrained(const std::filesystem::path& path, const LoadOptions& o) {
  if (!is_floating(o.dtype) || o.dtype == Dtype::f64) fail(kOp, fmt::format("{} given, f32, f16 or bf16 wanted", name(o.dtype)));
  const ModelFile file(path);
  const Maker make(file, o);
  std::shared_ptr<LanguageModel> model;
  if (const auto* llama = std::get_if<LlamaOptions>(&file.options())) {
    model = std::make_shared<Llama>(*llama, make);
  } else {
    model = std::make_shared<Gpt>(std::get<GptOptions>(file.options()));
    StateDict state;
    for (const auto& [parameter, w] : model->named_parameters()) state.emplace_back(parameter, file.tensor(parameter, w.shape(), Dtype::f32));
    model->load_state_dict(state);
    model->to(o.dtype);
  }
  file.check_all_in(*model, make.in_blocks());
  if (!o.quantize.empty() && make.quantized() == 0)
    fail(kOp, fmt::format("{}: quantize = {} given, but no matrix of a layer is there element by element", path.native(), o.quantize),
         "what is in blocks already stays in them");
  return model;
}

}  // namespace mezzo::models
