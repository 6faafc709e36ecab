// pretrained.cpp - Gpt to and from Hugging Face's GPT-2 directory layout.
#include <nlohmann/json.hpp>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/json.h"

namespace mezzo::models {
namespace {

/// Hugging Face's GPT-2 keeps linear weights as (in, out).
bool transposed(const std::string& path) {
  const auto ends = [&](std::string_view s) { return path.size() >= s.size() && path.compare(path.size() - s.size(), s.size(), s) == 0; };
  return ends("c_attn.weight") || ends("c_proj.weight") || ends("c_fc.weight");
}

std::int64_t integer(const io::Json& j, const char* key, const std::filesystem::path& file) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number_integer()) fail("load_gpt", fmt::format("{}: `{}` is missing or not an integer", file.string(), key));
  return it->get<std::int64_t>();
}

}  // namespace

void save_pretrained(const Gpt& model, const std::filesystem::path& dir) {
  const GptOptions& o = model.options();
  std::filesystem::create_directories(dir);
  const GradMode off(false);
  StateDict out;
  for (const auto& [path, t] : model.named_parameters()) out.emplace_back("transformer." + path, transposed(path) ? t.transpose(0, 1) : t);
  io::Json config = {
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
  if (!model.parameters().empty())
    config["torch_dtype"] = model.parameters()[0].dtype() == Dtype::bf16  ? "bfloat16"
                            : model.parameters()[0].dtype() == Dtype::f16 ? "float16"
                                                                          : "float32";
  save(out, dir / "model.safetensors");
  io::write_json(dir / "config.json", config);
}

std::shared_ptr<Gpt> load_gpt(const std::filesystem::path& dir) {
  const auto file = dir / "config.json";
  const io::Json j = io::read_json(file);
  const auto type = j.find("model_type");
  if (type == j.end() || !type->is_string() || *type != "gpt2")
    fail("load_gpt", fmt::format("{}: model_type is {}, \"gpt2\" wanted", file.string(), type == j.end() ? "missing" : io::to_text(*type)));
  GptOptions o;
  o.vocab = integer(j, "vocab_size", file);
  o.context = integer(j, "n_positions", file);
  o.width = integer(j, "n_embd", file);
  o.layers = static_cast<int>(integer(j, "n_layer", file));
  o.heads = static_cast<int>(integer(j, "n_head", file));
  if (const auto it = j.find("resid_pdrop"); it != j.end() && it->is_number()) o.dropout = it->get<double>();
  auto model = std::make_shared<Gpt>(o);
  StateDict state;
  const GradMode off(false);
  for (auto& [name, t] : load(dir / "model.safetensors")) {
    std::string path = name.rfind("transformer.", 0) == 0 ? name.substr(12) : name;
    if (path == "lm_head.weight" || path.find(".attn.bias") != path.npos || path.find(".attn.masked_bias") != path.npos)
      continue;  // the tied head; old files' causal masks
    state.emplace_back(path, transposed(path) && t.dim() == 2 ? t.transpose(0, 1) : t);
  }
  try {
    model->load_state_dict(state);
  } catch (const Error& e) { fail("load_gpt", fmt::format("{}: {}", (dir / "model.safetensors").string(), e.what())); }
  return model;
}

}  // namespace mezzo::models
