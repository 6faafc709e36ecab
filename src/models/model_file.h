// model_file.h - a model on disk: its shape, and its weights under Hugging Face's names, out of a GGUF file or a directory with safetensors.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <mezzo/models.h>

#include "io/encoding.h"
#include "io/gguf.h"
#include "io/json.h"
#include "ops/block_linear.h"

namespace mezzo::models {

/// Opened, mapped and checked; weights are read one by one, so that a model never lies in memory twice.
class ModelFile {
 public:
  /// A GGUF file, or a directory with config.json and model.safetensors or model.safetensors.index.json.
  /// Error: an architecture, a tensor or a setting that is not known, by its name; a tensor that is missing or misshapen.
  explicit ModelFile(std::filesystem::path);
  ~ModelFile();

  const ModelOptions& options() const { return options_; }
  const std::filesystem::path& path() const { return path_; }
  /// The GGUF file, or null.
  const io::GgufFile* gguf() const { return gguf_.get(); }

  /// The weight of a parameter (by its path in the model), in `dtype`. Error: not there, of another shape.
  Tensor tensor(const std::string& parameter, const Shape&, Dtype) const;
  /// The same where the file holds it in blocks, without copying them (rows of rotated heads apart, which GGUF orders otherwise); else null.
  std::shared_ptr<const BlockMatrix> blocks(const std::string& parameter, const Shape&) const;
  /// Error that names a weight of the file that no parameter of the model took.
  void check_all_in(const nn::Module& model, const std::vector<std::string>& in_blocks) const;

 private:
  struct Weight {
    io::Encoding encoding;
    std::vector<std::int64_t> shape;  // as stored
    std::span<const std::byte> data;
    bool transposed = false;     // GPT-2's Conv1D
    std::int64_t pair_rows = 0;  // of a rotated head of this size, whose rows stand as pairs (2i, 2i + 1): GGUF's Llama
    std::string name;            // in the file
  };
  void open_gguf();
  void open_directory();
  void add(const std::string& parameter, Weight);
  const Weight& find(const std::string& parameter, const Shape&) const;

  std::filesystem::path path_;
  ModelOptions options_;
  std::map<std::string, Weight> weights_;  // by parameter
  std::shared_ptr<io::GgufFile> gguf_;     // blocks keep it open
  std::vector<std::shared_ptr<io::SafetensorsFile>> parts_;
};

/// What Hugging Face's names of a GPT-2's weights begin with, and ours do not; empty for others.
std::string_view name_prefix(const ModelOptions&);
/// Whether Hugging Face's GPT-2 keeps this weight as (in, out), its Conv1D.
bool is_conv1d(std::string_view parameter);
/// The options that a config.json describes. Error names the file, and a family or setting that is not known.
ModelOptions options_from_config(const std::filesystem::path& config_json);
ModelOptions options_from_config(const io::Json& config, const std::string& source);
/// The options that a GGUF file's metadata describe.
ModelOptions options_from_gguf(const io::GgufFile&);
/// The parameter that a tensor of such a file is, as the model names it; empty: one that is left out (a rotary table). Error: unknown.
std::string parameter_of_gguf(const std::string& tensor, const ModelOptions&, const std::filesystem::path& file);

/// The other way round.
std::string gguf_of_parameter(const std::string& parameter, const ModelOptions&);
/// What GGUF calls the family: llama, qwen2, qwen3, gpt2.
std::string_view gguf_architecture(const ModelOptions&);
/// Whether files of the architecture `llama` have the rows of this weight's heads in pairs, (2i, 2i + 1) for (i, i + D / 2); Qwen's stay.
bool in_pairs(std::string_view parameter);
/// The rows of such a weight (H D, in) in that order, or back in ours.
Tensor in_file_order(const Tensor&, std::int64_t head_dim);
Tensor in_model_order(const Tensor&, std::int64_t head_dim);
/// The shape of a model that is there.
ModelOptions options_of(const LanguageModel&);
/// Its config.json.
io::Json config_of(const ModelOptions&);

}  // namespace mezzo::models
