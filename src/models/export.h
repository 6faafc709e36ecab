// export.h - models and adapters written for others: Hugging Face's directories, PEFT's adapters, GGUF files. Everything is written atomically.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <mezzo/models.h>
#include <mezzo/text.h>

#include "io/encoding.h"

namespace mezzo::models {

/// A weight as it leaves a model: out of its blocks, adapters added in.
struct MergedWeight {
  std::string parameter;
  Shape shape;
  Dtype dtype;                    ///< in the model; of blocks f32
  std::function<Tensor()> value;  ///< f32, made anew by each call, so that no two need be in memory together
};
/// In the order of the model. The model must outlive them.
std::vector<MergedWeight> merged_weights(const LanguageModel&);

// ---- adapters ------------------------------------------------------------------------------------

/// The options that add_lora() was called with; none: no adapters.
std::optional<LoraOptions> lora_options(const LanguageModel&);
/// The shortest names that select these layers, given by their paths, among the model's: their last parts, or the last two where layers of the same
/// last part are not among them ("mlp.c_proj").
std::vector<std::string> targets_of(const LanguageModel&, const std::set<std::string>& layers);
/// A directory in PEFT's layout (adapter_model.safetensors, adapter_config.json), which names `base`, the model that the adapters belong to.
/// Error for a model without adapters.
void save_adapter(const LanguageModel&, const std::filesystem::path& dir, const std::filesystem::path& base);
/// Whether it is such a directory.
bool is_adapter(const std::filesystem::path&);
/// The base that adapter_config.json names: as it stands there, or beside the directory. Error if it is not there.
std::filesystem::path adapter_base(const std::filesystem::path& dir);
/// Attaches the adapters of a directory (or of a GGUF file of adapters) to a model that has none. Error: a setting that this version cannot follow
/// (by its name), adapters for layers that the model lacks or of other sizes, some missing.
void load_adapter(LanguageModel&, const std::filesystem::path&);

// ---- whole models --------------------------------------------------------------------------------

/// model.safetensors and config.json, adapters merged, in `dtype` (vectors too, as torch's .to() does; unset: as they are), and the tokenizer's files
/// from `source` (a directory or GGUF file).
struct MergedOptions {
  std::optional<Dtype> dtype = {};
  std::filesystem::path source = {};
};
void save_merged(const LanguageModel&, const std::filesystem::path& dir, const MergedOptions&);

/// A GGUF file that llama.cpp and transformers read: matrices in `type` (F32 F16 BF16 Q8_0 Q4_0), vectors in F32; with Q4_0 the embedding and the
/// head are Q8_0, and rows that are no whole blocks F16. The tokenizer, the chat template and what else the metadata say of the model come from
/// `source`.
struct GgufOptions {
  io::Encoding type = Dtype::f16;
  std::filesystem::path source = {};
  const Tokenizer* tokenizer = nullptr;  ///< the one in `source`, where that is a directory
  std::string chat_template = {};        ///< instead of the one in `source`
};
void save_gguf(const LanguageModel&, const std::filesystem::path& file, const GgufOptions&);
/// The adapters alone, as llama.cpp's --lora takes them, in F32.
void save_adapter_gguf(const LanguageModel&, const std::filesystem::path& file);

}  // namespace mezzo::models
