// adapter.cpp - low-rank adapters in and out: PEFT's directories (github.com/huggingface/peft) and llama.cpp's GGUF files.
#include <algorithm>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include <mezzo/io.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/file.h"
#include "io/json.h"
#include "io/own_checksum.h"
#include "models/export.h"
#include "models/model_file.h"
#include "models/projection.h"
#include "tensor/layout.h"

namespace mezzo::models {
namespace {

namespace fs = std::filesystem;
constexpr const char *kOp = "adapter", *kConfig = "adapter_config.json", *kWeights = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";

/// Projections with adapters, by their paths.
std::map<std::string, Projection*> adapted(const LanguageModel& model) {
  std::map<std::string, Projection*> out;
  for (const auto& [path, module] : const_cast<LanguageModel&>(model).named_modules())
    if (auto* p = dynamic_cast<Projection*>(module); p && p->has_lora()) out.emplace(path, p);
  return out;
}

std::map<std::string, Projection*> adapted_or_fail(const LanguageModel& model) {
  auto all = adapted(model);
  if (all.empty()) fail(kOp, "the model has no adapters", "add_lora() attaches them");
  return all;
}

/// What PEFT's names begin with.
std::string prefix_of(const ModelOptions& options) { return std::string(kPrefix) + std::string(name_prefix(options)); }

/// Adapters as a file has them, by the paths of their layers.
struct Factors {
  LoraOptions options;
  std::map<std::string, std::pair<Tensor, Tensor>> by_layer;  // A (r, in), B (out, r)
};

/// What PEFT writes and this version would follow wrongly.
void check_settings(const io::Json& config, const fs::path& file, bool gpt) {
  const auto usual = [&](const char* key, const std::vector<io::Json>& values) {
    const auto it = config.find(key);
    if (it == config.end() || it->is_null() || (it->is_structured() && it->empty())) return;
    if (std::find(values.begin(), values.end(), *it) == values.end())
      fail(kOp, fmt::format("{}: {} is {}, which this version does not follow", file.native(), key, io::to_text(*it)));
  };
  usual("peft_type", {"LORA"});
  usual("bias", {"none"});
  for (const char* key : {"use_dora", "lora_bias"}) usual(key, {false});
  if (!gpt) usual("fan_in_fan_out", {false});  // of GPT-2's Conv1D it says how the weight lies, A and B lie the same
  for (const char* key : {"modules_to_save", "rank_pattern", "alpha_pattern", "target_parameters"}) usual(key, {});
}

Factors read_directory(const fs::path& dir, const ModelOptions& model) {
  const fs::path file = dir / kConfig, weights = dir / kWeights;
  const io::Json config = io::read_json(file);
  check_settings(config, file, std::holds_alternative<GptOptions>(model));
  const auto number = [&](const char* key) {
    const auto it = config.find(key);
    if (it == config.end() || !it->is_number()) fail(kOp, fmt::format("{}: `{}` is missing or not a number", file.native(), key));
    return it->get<double>();
  };
  Factors f;
  f.options.rank = static_cast<std::int64_t>(number("r"));
  f.options.alpha = number("lora_alpha");
  f.options.dropout = config.contains("lora_dropout") ? number("lora_dropout") : 0;
  f.options.rslora = config.value("use_rslora", false);
  const std::string prefix = prefix_of(model);
  for (auto& [name, t] : load(weights)) {
    const bool a = name.ends_with(".lora_A.weight"), b = name.ends_with(".lora_B.weight");
    if (!name.starts_with(kPrefix) || !(a || b))
      fail(kOp, fmt::format("{}: the tensor `{}` is no part of a linear layer's adapter", weights.native(), name));
    const std::string layer = name.substr(0, name.size() - std::string_view(".lora_A.weight").size());
    auto& pair = f.by_layer[layer.substr(layer.starts_with(prefix) ? prefix.size() : kPrefix.size())];
    (a ? pair.first : pair.second) = t;
  }
  return f;
}

Factors read_gguf(const fs::path& path, const LanguageModel& model) {
  const io::GgufFile file(path);
  const ModelOptions options = options_of(model);
  if (file.string("general.type") != "adapter" || file.string("adapter.type") != "lora")
    fail(kOp, fmt::format("{}: a file of the type {} given, an adapter of the type lora wanted", path.native(), file.string("general.type")));
  if (const auto arch = file.string("general.architecture"); arch != gguf_architecture(options))
    fail(kOp, fmt::format("{}: adapters for {} given, the model is {}", path.native(), arch, gguf_architecture(options)));
  const bool pairs = gguf_architecture(options) == "llama";
  Factors f;
  f.options.alpha = file.number_or("adapter.lora.alpha", 0);
  for (const auto& t : file.tensors()) {
    const std::string name(t.name);
    const bool a = name.ends_with(".lora_a"), b = name.ends_with(".lora_b");
    if (!(a || b) || t.shape.size() != 2) fail(kOp, fmt::format("{}: the tensor `{}` is no part of an adapter", path.native(), name));
    const std::string parameter = parameter_of_gguf(name.substr(0, name.size() - 7), options, path);
    Tensor value = make_tensor(Shape(t.shape), Dtype::f32);
    io::decode(t.encoding, t.data.data(), Dtype::f32, mutable_data(value), value.numel());
    if (b && pairs && in_pairs(parameter)) value = in_model_order(value, std::get<LlamaOptions>(options).head_dim);
    auto& pair = f.by_layer[parameter.substr(0, parameter.rfind('.'))];
    (a ? pair.first : pair.second) = value;
    if (a) f.options.rank = t.shape[0];
  }
  return f;
}

}  // namespace

std::optional<LoraOptions> lora_options(const LanguageModel& model) {
  const auto all = adapted(model);
  return all.empty() ? std::nullopt : std::optional(all.begin()->second->lora());
}

void save_adapter(const LanguageModel& model, const fs::path& dir, const fs::path& base) {
  const auto all = adapted_or_fail(model);
  const LoraOptions& o = all.begin()->second->lora();
  const ModelOptions options = options_of(model);
  const std::string prefix = prefix_of(options);
  std::set<std::string> layers;
  StateDict out;
  for (const auto& [path, p] : all) {
    layers.insert(path);
    out.emplace_back(fmt::format("{}{}.lora_A.weight", prefix, path), p->lora_a());
    out.emplace_back(fmt::format("{}{}.lora_B.weight", prefix, path), p->lora_b());
  }
  fs::create_directories(dir);
  save(out, dir / kWeights);
  std::error_code ignored;
  io::write_json(dir / kConfig, {{"peft_type", "LORA"},
                                 {"task_type", "CAUSAL_LM"},
                                 {"base_model_name_or_path", fs::exists(base, ignored) ? fs::weakly_canonical(base).native() : base.native()},
                                 {"r", o.rank},
                                 {"lora_alpha", o.alpha},
                                 {"lora_dropout", o.dropout},
                                 {"use_rslora", o.rslora},
                                 {"target_modules", targets_of(model, layers)},
                                 {"bias", "none"},
                                 {"fan_in_fan_out", std::holds_alternative<GptOptions>(options)},
                                 {"inference_mode", true}});
}

bool is_adapter(const fs::path& dir) {
  std::error_code ignored;
  return fs::is_regular_file(dir / kConfig, ignored);
}

fs::path adapter_base(const fs::path& dir) {
  const fs::path file = dir / kConfig;
  const io::Json config = io::read_json(file);
  const auto it = config.find("base_model_name_or_path");
  if (it == config.end() || !it->is_string()) fail(kOp, fmt::format("{}: base_model_name_or_path is missing", file.native()));
  const fs::path named = it->get<std::string>();
  std::error_code ignored;
  for (const fs::path& candidate : {named, dir / named, dir.parent_path() / named.filename()})
    if (!named.empty() && fs::exists(candidate, ignored)) return candidate;
  fail(kOp, fmt::format("{}: the base model `{}` is not there", file.native(), named.native()),
       "put it there or beside the adapter's directory, or write its path into base_model_name_or_path");
}

void load_adapter(LanguageModel& model, const fs::path& path) {
  std::error_code ignored;
  Factors f = fs::is_directory(path, ignored) ? read_directory(path, options_of(model)) : read_gguf(path, model);
  if (f.by_layer.empty()) fail(kOp, fmt::format("{}: it holds no adapter", path.native()));
  std::set<std::string> layers;
  for (const auto& [layer, pair] : f.by_layer) layers.insert(layer);
  f.options.targets = targets_of(model, layers);
  add_lora(model, f.options);
  const GradMode off(false);
  for (auto& [layer, p] : adapted(model)) {
    const auto it = f.by_layer.find(layer);
    if (it == f.by_layer.end() || !it->second.first.defined() || !it->second.second.defined())
      fail(kOp, fmt::format("{}: the adapter of `{}` is missing or incomplete", path.native(), layer));
    for (auto [to, from] : {std::pair(p->lora_a(), it->second.first), std::pair(p->lora_b(), it->second.second)}) {
      if (to.shape() != from.shape())
        fail(kOp,
             fmt::format("{}: the adapter of `{}` has a matrix of {}, {} wanted", path.native(), layer, to_string(from.shape()),
                         to_string(to.shape())),
             "it belongs to another model");
      copy_(to, from);
    }
    f.by_layer.erase(it);
  }
  if (!f.by_layer.empty())
    fail(kOp, fmt::format("{}: the model has no layer `{}`", path.native(), f.by_layer.begin()->first), "it belongs to another model");
}

void save_adapter_gguf(const LanguageModel& model, const fs::path& file) {
  const auto all = adapted_or_fail(model);
  const ModelOptions options = options_of(model);
  const bool pairs = gguf_architecture(options) == "llama";
  io::GgufMetadata metadata;
  metadata.put("general.type", "adapter");
  metadata.put("general.architecture", gguf_architecture(options));
  metadata.put("adapter.type", "lora");
  metadata.put(io::kChecksumKey, io::kNoChecksum);
  // llama.cpp scales by alpha / rank.
  metadata.put("adapter.lora.alpha", static_cast<float>(all.begin()->second->lora_scale() * static_cast<double>(all.begin()->second->lora().rank)));
  std::vector<std::pair<std::string, Tensor>> kept;
  for (const auto& [path, p] : all) {
    const std::string parameter = path + ".weight", name = gguf_of_parameter(parameter, options);
    const Tensor b = p->lora_b().detach();
    kept.emplace_back(name + ".lora_a", p->lora_a().detach().contiguous());
    kept.emplace_back(name + ".lora_b", pairs && in_pairs(parameter) ? in_file_order(b, std::get<LlamaOptions>(options).head_dim) : b.contiguous());
  }
  std::vector<io::GgufTensor> tensors;
  for (const auto& [name, t] : kept) tensors.push_back({name, Dtype::f32, {t.shape().begin(), t.shape().end()}, std::as_bytes(t.data<float>())});
  io::write_gguf(file, metadata, tensors);
}

}  // namespace mezzo::models
