// models.h - whole language models.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <mezzo/nn.h>

namespace mezzo::models {

struct GptOptions {
  std::int64_t vocab = 256, context = 256;
  int layers = 6, heads = 6;
  std::int64_t width = 384;
  double dropout = 0;
};

/// GPT-2's shape (Radford et al., 2019): pre-norm blocks, learned positions, GELU (tanh form) of width 4 C, a head tied to the embedding;
/// GPT-2's initialisation (normal 0.02, residual projections over sqrt(2 layers)) from the default generator.
/// Parameters: wte.weight, wpe.weight, h.N.{ln_1,attn.c_attn,attn.c_proj,ln_2,mlp.c_fc,mlp.c_proj}.{weight,bias}, ln_f.{weight,bias}.
class MEZZO_API Gpt : public nn::Module {
 public:
  explicit Gpt(GptOptions);  ///< Error: heads do not divide width, a size below 1
  ~Gpt() override;
  Tensor forward(const Tensor& ids) override;  ///< (B, T) ids -> logits (B, T, V); Error for T beyond the context
  Tensor operator()(const Tensor& ids) { return forward(ids); }
  /// Mean cross-entropy over targets (B, T); -100 carries no loss. Never holds the logits.
  Tensor loss(const Tensor& ids, const Tensor& targets);
  Tensor loss(const Tensor& ids, const Tensor& targets, LossOptions);
  /// Logits of the last position only: (B, 1, V).
  Tensor last_logits(const Tensor& ids);
  const GptOptions& options() const { return options_; }

 private:
  struct Block;
  Tensor hidden(const Tensor& ids);
  GptOptions options_;
  std::shared_ptr<nn::Embedding> wte_, wpe_;
  std::shared_ptr<nn::Dropout> drop_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::LayerNorm> ln_f_;
  Tensor positions_;  // 0 .. context - 1
};

/// Parses "gpt:layers=,heads=,width=[,vocab=][,context=][,dropout=]" or a preset ("gpt2-124m"); what the spec leaves out is taken from `defaults`.
/// Error names the unknown key or preset and near ones.
MEZZO_API GptOptions gpt_from_spec(const std::string& spec, GptOptions defaults = {});
/// The spec that gives these options.
MEZZO_API std::string to_spec(const GptOptions&);
/// Parameters of a model of this shape (the tied head once), counted from the options.
MEZZO_API std::int64_t parameter_count(const GptOptions&);

struct SampleOptions {
  std::int64_t max_tokens = 200;
  double temperature = 0.8;  ///< 0: the likeliest token
  int top_k = 0;             ///< 0: all
  std::uint64_t seed = 0;
};
/// Continues `prompt` token by token; `on_token` (may be empty) sees each and stops by returning false.
MEZZO_API std::vector<std::int32_t> sample(Gpt&, std::vector<std::int32_t> prompt, const SampleOptions& = {},
                                           const std::function<bool(std::int32_t)>& on_token = {});

/// Writes model.safetensors and config.json in Hugging Face's GPT-2 layout (linear weights transposed, as its Conv1D has them).
MEZZO_API void save_pretrained(const Gpt&, const std::filesystem::path& dir);
/// Reads such a directory. Error names what is missing or does not fit.
MEZZO_API std::shared_ptr<Gpt> load_gpt(const std::filesystem::path& dir);

}  // namespace mezzo::models
