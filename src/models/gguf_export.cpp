// gguf_export.cpp - a model as a GGUF file, with the names, the shape's keys and the order of rows that llama.cpp expects.
#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "io/gguf.h"
#include "io/own_checksum.h"
#include "models/export.h"
#include "models/llama_block.h"
#include "models/model_file.h"
#include "text/tokenizer_files.h"

namespace mezzo::models {
namespace {

namespace fs = std::filesystem;

/// llama.cpp's number for what most of a file's matrices are: general.file_type.
std::uint32_t file_type(const io::Encoding& e) {
  if (e.blocks) return *e.blocks == kernels::Format::q4_0 ? 2 : 7;
  return e.dtype == f32 ? 0 : e.dtype == f16 ? 1 : 32;
}

void put_shape(io::GgufMetadata& m, const ModelOptions& options) {
  const std::string arch(gguf_architecture(options));
  const auto put = [&](const char* key, auto value) { m.put(arch + "." + key, value); };
  const auto count = [](std::int64_t n) { return static_cast<std::uint32_t>(n); };
  const auto real = [](double x) { return static_cast<float>(x); };
  m.put("general.architecture", arch);
  std::visit(
      [&](const auto& o) {
        put("block_count", count(o.layers));
        put("context_length", count(o.context));
        put("embedding_length", count(o.width));
        put("attention.head_count", count(o.heads));
        put("vocab_size", count(o.vocab));
      },
      options);
  if (const auto* o = std::get_if<LlamaOptions>(&options)) {
    put("feed_forward_length", count(o->ffn));
    put("attention.head_count_kv", count(o->kv_heads));
    put("attention.layer_norm_rms_epsilon", real(o->norm_eps));
    put("attention.key_length", count(o->head_dim));
    put("attention.value_length", count(o->head_dim));
    put("rope.dimension_count", count(o->head_dim));
    put("rope.freq_base", real(o->rope_base));
    if (o->rope_scaling.kind == RopeScaling::Kind::linear) {
      put("rope.scaling.type", "linear");
      put("rope.scaling.factor", real(o->rope_scaling.factor));
    }
  } else {
    put("feed_forward_length", count(4 * std::get<GptOptions>(options).width));
    put("attention.layer_norm_epsilon", 1e-5f);
  }
}

/// Everything the source's own metadata say, but what this file decides anew.
void copy_metadata(io::GgufMetadata& m, const io::GgufFile& source) {
  for (const io::GgufField& f : source.fields())
    if (f.key != "general.alignment" && f.key != "general.file_type" && f.key != "general.quantization_version") m.put(f);
}

/// rope_freqs.weight: by how much each frequency is slower than without scaling; undefined where the file says it in another way.
Tensor rope_factors(const ModelOptions& options) {
  const auto* o = std::get_if<LlamaOptions>(&options);
  if (!o || (o->rope_scaling.kind != RopeScaling::Kind::llama3 && o->rope_scaling.kind != RopeScaling::Kind::factors)) return {};
  LlamaOptions plain = *o;
  plain.rope_scaling = {};
  return div(rope_frequencies(plain), rope_frequencies(*o));
}

io::Encoding encoding_of(const MergedWeight& w, const io::Encoding& type) {
  if (w.shape.size() < 2) return Dtype::f32;
  if (!type.blocks) return type;
  const bool table = w.parameter.find("embed_tokens") != std::string::npos || w.parameter == "lm_head.weight" || w.parameter == "wte.weight";
  const kernels::Format format = table ? kernels::Format::q8_0 : *type.blocks;
  const auto columns = w.shape[w.shape.size() - 1];
  return columns % kernels::facts(format).elements == 0 ? io::Encoding(format) : io::Encoding(Dtype::f16);
}

}  // namespace

void save_gguf(const LanguageModel& model, const fs::path& file, const GgufOptions& o) {
  const char* op = "save_gguf";
  if (!io::can_encode(o.type)) fail(op, fmt::format("the type {} given, one of F32 F16 BF16 Q8_0 Q4_0 wanted", io::name(o.type)));
  const GradMode off(false);
  const ModelOptions options = options_of(model);
  io::GgufMetadata metadata;
  metadata.put("general.architecture", gguf_architecture(options));
  metadata.put("general.type", "model");
  metadata.put(io::kChecksumKey, io::kNoChecksum);
  std::error_code ignored;
  if (fs::is_regular_file(o.source, ignored)) copy_metadata(metadata, io::GgufFile(o.source));
  else if (o.tokenizer) text::put_tokenizer(*o.tokenizer, o.source, metadata);
  if (!o.chat_template.empty()) metadata.put("tokenizer.chat_template", std::string_view(o.chat_template));
  put_shape(metadata, options);
  metadata.put("general.file_type", file_type(o.type));

  const std::vector<MergedWeight> weights = merged_weights(model);
  const Tensor factors = rope_factors(options);
  std::vector<std::string> names;
  for (const auto& w : weights) names.push_back(gguf_of_parameter(w.parameter, options));
  std::vector<io::GgufTensor> tensors;
  for (std::size_t i = 0; i < weights.size(); ++i)
    tensors.push_back({names[i], encoding_of(weights[i], o.type), {weights[i].shape.begin(), weights[i].shape.end()}, {}});
  if (factors.defined()) tensors.push_back({"rope_freqs.weight", Dtype::f32, {factors.numel()}, {}});

  const bool pairs = gguf_architecture(options) == "llama";
  std::size_t next = 0;  // tensors come in order
  io::write_gguf(file, metadata, tensors, [&](const io::GgufTensor& t, io::TensorSink sink) {
    const std::size_t i = next++;
    if (i == weights.size()) return sink(std::as_bytes(factors.data<float>()));
    Tensor value = weights[i].value();
    if (pairs && in_pairs(weights[i].parameter)) value = in_file_order(value, std::get<LlamaOptions>(options).head_dim);
    io::encode(t.encoding, value.data<float>().data(), value.numel(), t.name, sink);
  });
}

}  // namespace mezzo::models
