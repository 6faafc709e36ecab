// pretrained.cpp - models to and from Hugging Face's directory layout.
#include <nlohmann/json.hpp>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/json.h"
#include "io/own_checksum.h"
#include "io/safetensors.h"
#include "models/export.h"
#include "models/maker.h"
#include "models/model_file.h"
#include "text/tokenizer_files.h"

namespace mezzo::models {
namespace {

constexpr const char* kOp = "load_pretrained";

const char* torch_name(Dtype t) { return t == Dtype::bf16 ? "bfloat16" : t == Dtype::f16 ? "float16" : "float32"; }

/// model.safetensors and config.json.
void save_weights(const LanguageModel& model, const std::filesystem::path& dir, std::optional<Dtype> dtype) {
  const GradMode off(false);
  const ModelOptions options = options_of(model);
  const bool gpt = std::holds_alternative<GptOptions>(options);
  const std::string prefix(name_prefix(options));
  std::map<std::string, const MergedWeight*> by_name;
  std::vector<io::TensorEntry> entries;
  const std::vector<MergedWeight> weights = merged_weights(model);
  for (const MergedWeight& w : weights) {
    const std::string name = prefix + w.parameter;
    std::vector<std::int64_t> shape(w.shape.begin(), w.shape.end());
    if (gpt && is_conv1d(w.parameter)) std::swap(shape[0], shape[1]);
    entries.push_back({name, dtype.value_or(w.dtype), shape, {}});
    by_name[name] = &w;
  }
  std::filesystem::create_directories(dir);
  io::write_safetensors(dir / "model.safetensors", entries, {{"format", "pt"}, {std::string(io::kChecksumKey), std::string(io::kNoChecksum)}},
                        [&](const io::TensorEntry& e, io::TensorSink sink) {
                          const MergedWeight& w = *by_name.at(e.name);
                          Tensor value = w.value();
                          if (gpt && is_conv1d(w.parameter)) value = value.transpose(0, 1).contiguous();
                          io::encode(e.dtype, value.data<float>().data(), value.numel(), e.name, sink);
                        });
  io::Json config = config_of(options);
  config["torch_dtype"] = torch_name(entries.front().dtype);
  io::write_json(dir / "config.json", config);
}

}  // namespace

void save_pretrained(const LanguageModel& model, const std::filesystem::path& dir) { save_weights(model, dir, {}); }

void save_merged(const LanguageModel& model, const std::filesystem::path& dir, const MergedOptions& o) {
  if (o.dtype && !io::can_encode(*o.dtype)) fail("save_merged", fmt::format("{} given, f32, f16 or bf16 wanted", name(*o.dtype)));
  save_weights(model, dir, o.dtype);
  text::copy_tokenizer(o.source, dir, model.context());
}

std::shared_ptr<LanguageModel> load_pretrained(const std::filesystem::path& path, const LoadOptions& o) {
  if (!is_floating(o.dtype) || o.dtype == Dtype::f64) fail(kOp, fmt::format("{} given, f32, f16 or bf16 wanted", name(o.dtype)));
  const ModelFile file(path);
  const Maker make(file, o);
  std::shared_ptr<LanguageModel> model;
  if (const auto* llama = std::get_if<LlamaOptions>(&file.options())) {
    if (o.dropout.value_or(0) > 0)
      fail(kOp, fmt::format("{}: dropout {} given, and a Llama has none", path.native(), *o.dropout), "adapters can have one of their own");
    model = std::make_shared<Llama>(*llama, make);
  } else {
    model = std::make_shared<Gpt>(std::get<GptOptions>(file.options()), make);
  }
  file.check_all_in(*model, make.in_blocks());
  if (!o.quantize.empty() && make.quantized() == 0)
    fail(kOp, fmt::format("{}: quantize = {} given, but no matrix of a layer is there element by element", path.native(), o.quantize),
         "what is in blocks already stays in them");
  return model;
}

}  // namespace mezzo::models
