// models.h - whole language models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <mezzo/nn.h>

namespace mezzo::models {

class Maker;
class Table;

/// Keys and values of the tokens a model has read so far, so that the next ones need no second look at them. Inference only.
class MEZZO_API KvCache {
 public:
  /// Room for `capacity` tokens of `batch` sequences in each of `layers` layers.
  KvCache(int layers, std::int64_t batch, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, Dtype dtype);
  std::int64_t length() const { return length_; }  ///< tokens in it
  std::int64_t capacity() const { return keys_.empty() ? 0 : keys_[0].size(2); }
  /// Writes k and v (B, Hkv, T, D) of the next T tokens of a layer and gives all so far: (B, Hkv, length + T, D) each. Error beyond the capacity.
  std::pair<Tensor, Tensor> append(int layer, const Tensor& k, const Tensor& v);
  void advance(std::int64_t tokens) { length_ += tokens; }  ///< once every layer has appended
  void truncate(std::int64_t length);                       ///< forgets what follows

 private:
  std::vector<Tensor> keys_, values_;  // (B, Hkv, capacity, D), a layer each
  std::int64_t length_ = 0;
};

/// How the tokens that a model is given stand to each other.
struct Sequence {
  std::vector<std::int64_t> lengths = {};  ///< documents side by side in each row; positions begin anew and attention stays inside. Empty: one
  KvCache* cache = nullptr;                ///< tokens continue those in it
};

/// A causal language model: what trainers, evaluators and samplers need of one.
class MEZZO_API LanguageModel : public nn::Module {
 public:
  Tensor forward(const Tensor& ids) override;  ///< (B, T) ids -> logits (B, T, V); Error for T beyond the context
  Tensor operator()(const Tensor& ids) { return forward(ids); }
  /// Mean cross-entropy over targets (B, T); -100 carries no loss. Never holds the logits.
  Tensor loss(const Tensor& ids, const Tensor& targets) { return loss(ids, targets, LossOptions{}); }
  Tensor loss(const Tensor& ids, const Tensor& targets, const LossOptions&);
  Tensor loss(const Tensor& ids, const Tensor& targets, const Sequence&, const LossOptions& = {});
  /// Logits of the last position only: (B, 1, V).
  Tensor last_logits(const Tensor& ids, const Sequence& = {});
  /// Room for `capacity` more tokens of `batch` sequences, in the dtype that the model computes in now.
  virtual KvCache make_cache(std::int64_t batch, std::int64_t capacity) const = 0;
  virtual std::int64_t vocab() const = 0;
  virtual std::int64_t context() const = 0;
  /// In training, of each so many blocks only the input is kept; backward computes what is inside again, bit for bit. 0: everything is kept.
  void checkpoint_every(int blocks) { checkpoint_every_ = blocks; }

 protected:
  /// (B, T) ids -> (B, T, C) behind the last norm.
  virtual Tensor hidden(const Tensor& ids, const Sequence&) = 0;
  virtual Tensor head() const = 0;                ///< (V, C)
  virtual Tensor project(const Tensor& h) const;  ///< h (..., C) -> logits (..., V): the product with the head
  /// Error unless ids are (B, T) and fit into the context with what the cache holds.
  void check_ids(const char* model, const Tensor& ids, const Sequence&) const;
  /// x through `count` blocks one after the other, block(x, i) being the i-th.
  Tensor through_blocks(Tensor x, int count, const Sequence&, const std::function<Tensor(const Tensor&, int)>& block) const;

 private:
  int checkpoint_every_ = 0;
};

struct GptOptions {
  std::int64_t vocab = 256, context = 256;
  int layers = 6, heads = 6;
  std::int64_t width = 384;
  double dropout = 0;
};

/// GPT-2's shape (Radford et al., 2019): pre-norm blocks, learned positions, GELU (tanh form) of width 4 C, a head tied to the embedding;
/// GPT-2's initialisation (normal 0.02, residual projections over sqrt(2 layers)) from the default generator.
/// Parameters: wte.weight, wpe.weight, h.N.{ln_1,attn.c_attn,attn.c_proj,ln_2,mlp.c_fc,mlp.c_proj}.{weight,bias}, ln_f.{weight,bias}.
class MEZZO_API Gpt : public LanguageModel {
 public:
  explicit Gpt(GptOptions);  ///< Error: heads do not divide width, a size below 1
  Gpt(GptOptions, const Maker&);
  ~Gpt() override;
  const GptOptions& options() const { return options_; }  ///< as they were given, whatever LoadOptions::dropout says
  KvCache make_cache(std::int64_t batch, std::int64_t capacity) const override;
  std::int64_t vocab() const override { return options_.vocab; }
  std::int64_t context() const override { return options_.context; }

 protected:
  Tensor hidden(const Tensor& ids, const Sequence&) override;
  Tensor head() const override;
  Tensor project(const Tensor& h) const override;

 private:
  struct Block;
  GptOptions options_;
  std::shared_ptr<Table> wte_;
  std::shared_ptr<nn::Embedding> wpe_;
  std::shared_ptr<nn::Dropout> drop_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::shared_ptr<nn::LayerNorm> ln_f_;
  Tensor positions_;  // 0 .. context - 1
};

/// How rotary positions are stretched beyond the context that a model was first trained with.
struct RopeScaling {
  enum class Kind : std::uint8_t { none, linear, llama3, factors };
  Kind kind = Kind::none;
  double factor = 1;                                 ///< linear: positions / factor
  double low_freq_factor = 1, high_freq_factor = 4;  ///< llama3: wave lengths above context / low are divided by factor, those below
  std::vector<double> factors = {};                  ///< factors: each frequency (D / 2) divided by its own, as GGUF files have llama3's rule
  double original_context = 8192;                    ///< context / high stay, between them smoothly (Llama 3.1's rule)
};

struct LlamaOptions {
  std::int64_t vocab = 256, context = 256;
  int layers = 6, heads = 6, kv_heads = 0;  ///< kv_heads 0: heads
  std::int64_t width = 384;
  std::int64_t ffn = 0;       ///< 0: 8/3 width, rounded up to a multiple of 64
  std::int64_t head_dim = 0;  ///< 0: width / heads
  double norm_eps = 1e-5, rope_base = 10000;
  RopeScaling rope_scaling = {};
  bool tied = true;       ///< the head is the embedding
  bool qkv_bias = false;  ///< Qwen2
  bool qk_norm = false;   ///< Qwen3: RMS norm of each query and key head
};

/// Llama's shape (Touvron et al., arXiv 2302.13971) and its relatives: RMS norms, rotary positions, grouped queries (Ainslie et al., arXiv
/// 2305.13245), SwiGLU. Weights are normal 0.02 at first, residual projections over sqrt(2 layers).
/// Parameters, as Hugging Face names them: model.embed_tokens.weight, model.layers.N.{input_layernorm,self_attn.{q,k,v,o}_proj[,.bias],
/// self_attn.{q,k}_norm,post_attention_layernorm,mlp.{gate,up,down}_proj}.weight, model.norm.weight, lm_head.weight unless tied.
class MEZZO_API Llama : public LanguageModel {
 public:
  explicit Llama(LlamaOptions);  ///< Error: kv_heads do not divide heads, an odd head size, a size below 1
  Llama(LlamaOptions, const Maker&);
  ~Llama() override;
  const LlamaOptions& options() const { return options_; }  ///< with every 0 resolved
  KvCache make_cache(std::int64_t batch, std::int64_t capacity) const override;
  std::int64_t vocab() const override { return options_.vocab; }
  std::int64_t context() const override { return options_.context; }

 protected:
  Tensor hidden(const Tensor& ids, const Sequence&) override;
  Tensor head() const override;
  Tensor project(const Tensor& h) const override;

 private:
  struct Block;
  struct Body;
  LlamaOptions options_;
  std::shared_ptr<Body> body_;
  std::shared_ptr<Table> lm_head_;  // null when tied
};

/// What a spec, a run or a model directory says of a model.
using ModelOptions = std::variant<GptOptions, LlamaOptions>;

/// Parses "gpt:layers=,heads=,width=[,vocab=][,context=][,dropout=]", "llama:layers=,heads=,width=[,kv_heads=][,ffn=][,vocab=][,context=]...", or a
/// preset (gpt2-124m, smollm2-135m); what the spec leaves out is taken from `defaults` (vocab, context) and the family's own.
/// Error names the unknown key, family or preset and near ones, and sizes that do not fit together.
struct SpecDefaults {
  std::int64_t vocab = 256, context = 256;
};
MEZZO_API ModelOptions model_from_spec(const std::string& spec, SpecDefaults = {});
/// The spec that gives these options.
MEZZO_API std::string to_spec(const ModelOptions&);
/// "gpt" or "llama".
MEZZO_API const char* family(const ModelOptions&);
MEZZO_API std::int64_t vocab(const ModelOptions&);
MEZZO_API std::int64_t context(const ModelOptions&);
MEZZO_API std::int64_t width(const ModelOptions&);
/// Parameters of a model of this shape (a tied head once), counted from the options.
MEZZO_API std::int64_t parameter_count(const ModelOptions&);
/// The model, newly initialised from the default generator.
MEZZO_API std::shared_ptr<LanguageModel> make_model(const ModelOptions&);

/// Low-rank adaptation (Hu et al., arXiv 2106.09685): w + alpha / rank B A, of which A and B alone are trained, in f32.
struct LoraOptions {
  std::int64_t rank = 16;
  double alpha = 16;
  double dropout = 0;   ///< of the adapter's input
  bool rslora = false;  ///< alpha / sqrt(rank) instead (Kalajdzievski, arXiv 2312.03732)
  /// Names of the layers that get one, as the last parts of their paths ("q_proj", "c_attn", "mlp.c_proj"); "all-linear": every linear layer of the
  /// blocks, as QLoRA advises (arXiv 2305.14314).
  std::vector<std::string> targets = {"all-linear"};
};
/// Freezes the model and attaches adapters to the layers that `targets` names: of a Llama q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj,
/// down_proj, of a Gpt c_attn, c_proj (attention's and the MLP's), c_fc. Error: no layer of that name, rank below 1, a model of another kind,
/// adapters already there.
MEZZO_API void add_lora(LanguageModel&, const LoraOptions& = {});
/// The parameters that require grad, with their paths.
MEZZO_API std::vector<std::pair<std::string, Tensor>> trainable_parameters(const nn::Module&);

struct SampleOptions {
  std::int64_t max_tokens = 200;
  double temperature = 0.8;  ///< 0: the likeliest token
  int top_k = 0;             ///< only the k likeliest; 0: all
  double top_p = 1;          ///< of these the fewest that hold this share of the probability (Holtzman et al., arXiv 1904.09751)
  /// Logits of tokens that are there already are divided by it, negative ones multiplied (Keskar et al., arXiv 1909.05858).
  double repetition_penalty = 1;
  std::uint64_t seed = 0;
  std::vector<std::int32_t> stop = {};  ///< tokens that end the text; the one that did is its last
};
/// `prompt` continued token by token; `on_token` (may be empty) sees each, but not one of `stop`, and ends it by returning false. The last tokens of
/// a prompt that is longer than the context are what is read of it.
MEZZO_API std::vector<std::int32_t> sample(LanguageModel&, std::vector<std::int32_t> prompt, const SampleOptions& = {},
                                           const std::function<bool(std::int32_t)>& on_token = {});

/// Writes model.safetensors and config.json in Hugging Face's layout (GPT-2's linear weights transposed, as its Conv1D has them).
MEZZO_API void save_pretrained(const LanguageModel&, const std::filesystem::path& dir);
struct LoadOptions {
  Dtype dtype = Dtype::f32;  ///< of matrices; vectors (norms, biases) are f32
  /// Matrices that a GGUF file holds in blocks stay there, mapped, and are unpacked by each product: frozen, and without a copy.
  bool keep_blocks = false;
  /// With keep_blocks the embedding too, and a head of its own: for models that are only asked. A loss unpacks the head each time.
  bool keep_table = false;
  /// "q8_0", "q4_0" or "nf4" (QLoRA's 4-bit NormalFloat, arXiv 2305.14314, in blocks of 64), with keep_blocks: the layers' matrices that the file
  /// holds element by element are rounded into such blocks, in memory.
  std::string quantize = {};
  /// A GPT-2's in training, instead of its file's, which save_pretrained() writes on all the same. Error if above 0 for a Llama, which has none.
  std::optional<double> dropout = {};
};
/// The model of a GGUF file (Llama, Qwen2, Qwen3, GPT-2) or of a directory in Hugging Face's layout (safetensors, single or in parts).
/// Error names what is missing, unknown or does not fit.
MEZZO_API std::shared_ptr<LanguageModel> load_pretrained(const std::filesystem::path&, const LoadOptions& = {});

}  // namespace mezzo::models
