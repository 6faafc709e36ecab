// nn.h - modules: parameters with names, and the layers built from them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <mezzo/io.h>
#include <mezzo/ops.h>

namespace mezzo::nn {

/// A part of a model: parameters, buffers and other modules, each under a name; paths join names with dots.
/// Derive, register in the constructor, override forward. A parameter's Tensor::name() is its path.
class MEZZO_API Module {
 public:
  virtual ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  virtual Tensor forward(const Tensor& x);  ///< Error unless overridden
  Tensor operator()(const Tensor& x) { return forward(x); }

  std::vector<std::pair<std::string, Tensor>> named_parameters() const;  ///< in order of registration, depth first; a shared one once
  std::vector<Tensor> parameters() const;
  std::vector<std::pair<std::string, Tensor>> named_buffers() const;
  std::vector<std::pair<std::string, Module*>> named_modules();  ///< this one first, as ""
  Module& train(bool on = true);
  Module& eval() { return train(false); }
  bool is_training() const { return training_; }
  StateDict state_dict() const;            ///< parameters and buffers; handles, not copies
  void load_state_dict(const StateDict&);  ///< copies values in (converted); Error names missing, unexpected and misshapen entries
  void zero_grad();
  Module& to(Dtype);  ///< floating parameters and buffers, except what keep() matched
  /// Parameters whose path matches (regex_search, ECMAScript) stay in `dtype` under to() and in every recipe. Error if none matches.
  Module& keep(const std::string& regex, Dtype);

 protected:
  Module();
  Tensor register_parameter(std::string name, Tensor);  ///< requires grad from now on; Error on a bad or taken name
  Tensor register_buffer(std::string name, Tensor);
  // NOLINTNEXTLINE(performance-unnecessary-value-param): moved, which clang-tidy does not see in a template
  template <class M> std::shared_ptr<M> register_module(std::string name, std::shared_ptr<M> m) {
    add_module(std::move(name), m);
    return m;
  }
  void register_modules(const std::vector<std::shared_ptr<Module>>&);  ///< each under its number, from "0" on
  /// Marks a parameter that stays f32 in every recipe but pure: norm weights, biases, adapters.
  static void mark_exempt(const Tensor&);
  /// Marks a buffer (or parameter) whose dtype to() and recipes leave alone: running statistics.
  static void mark_kept(const Tensor&);
  /// Marks a 16-bit leaf that several contributions reach before each step (a tied head): its gradient is kept in f32 until then.
  static void mark_shared(const Tensor&);

 private:
  void add_module(std::string name, std::shared_ptr<Module>);
  void attach(std::string name, std::shared_ptr<Module>);
  void name_parameters();
  template <class F> void each_parameter(const std::string& prefix, const F&) const;

  std::vector<std::pair<std::string, Tensor>> parameters_, buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> modules_;
  bool training_ = true;
};

struct LinearOptions {
  std::int64_t in = 0, out = 0;
  bool bias = true;
};
/// x w^T + b; weight (out, in) and bias (out), uniform in +-1/sqrt(in) at first, as in torch.
class MEZZO_API Linear : public Module {
 public:
  explicit Linear(LinearOptions);
  Tensor forward(const Tensor& x) override;
  Tensor weight, bias;
};

struct EmbeddingOptions {
  std::int64_t num = 0, dim = 0;
};
/// Rows of weight (num, dim), standard normal at first.
class MEZZO_API Embedding : public Module {
 public:
  explicit Embedding(EmbeddingOptions);
  explicit Embedding(Tensor table);  ///< (num, dim), taken as it is
  Tensor forward(const Tensor& ids) override;
  Tensor weight;
};

struct LayerNormOptions {
  std::int64_t dim = 0;
  double eps = 1e-5;
  bool bias = true;
};
/// layer_norm of x (..., dim); weight and bias (dim), 1 and 0 at first.
class MEZZO_API LayerNorm : public Module {
 public:
  explicit LayerNorm(LayerNormOptions);
  Tensor forward(const Tensor& x) override;
  Tensor weight, bias;

 private:
  double eps_;
};

struct RmsNormOptions {
  std::int64_t dim = 0;
  double eps = 1e-5;
};
/// rms_norm of x (..., dim); weight (dim), 1 at first.
class MEZZO_API RmsNorm : public Module {
 public:
  explicit RmsNorm(RmsNormOptions);
  Tensor forward(const Tensor& x) override;
  Tensor weight;

 private:
  double eps_;
};

struct Conv2dOptions {
  std::int64_t in = 0, out = 0;
  PerDim kernel = {};
  PerDim stride = 1, padding = 0, dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
  PerDim output_padding = 0;  ///< ConvTranspose2d only
};
using Conv1dOptions = Conv2dOptions;
using Conv3dOptions = Conv2dOptions;
using ConvTranspose2dOptions = Conv2dOptions;
/// What convolutions share: weight (out, in / groups, kernel), or (in, out / groups, kernel) for a transposed one, and bias (out); at first both
/// uniform in +-1/sqrt(n), n being the elements of weight[0], as in torch.
class MEZZO_API Convolution : public Module {
 public:
  Tensor weight, bias;

 protected:
  Convolution(const char* name, int spatial, bool transposed, const Conv2dOptions&);
  ConvOptions options_;
};
class MEZZO_API Conv1d : public Convolution {
 public:
  explicit Conv1d(const Conv1dOptions&);
  Tensor forward(const Tensor& x /*(N, in, L)*/) override;
};
class MEZZO_API Conv2d : public Convolution {
 public:
  explicit Conv2d(const Conv2dOptions&);
  Tensor forward(const Tensor& x /*(N, in, H, W)*/) override;
};
class MEZZO_API Conv3d : public Convolution {
 public:
  explicit Conv3d(const Conv3dOptions&);
  Tensor forward(const Tensor& x /*(N, in, D, H, W)*/) override;
};
class MEZZO_API ConvTranspose2d : public Convolution {
 public:
  explicit ConvTranspose2d(const ConvTranspose2dOptions&);
  Tensor forward(const Tensor& x /*(N, in, H, W)*/) override;
};

struct BatchNorm2dOptions {
  std::int64_t dim = 0;  ///< channels
  double eps = 1e-5, momentum = 0.1;
  bool affine = true;  ///< has weight and bias
};
/// What BatchNorm1d and BatchNorm2d share: weight, bias, and the buffers running_mean, running_var, which stay f32 whatever to() says. A step that
/// train::Step does not apply leaves them as they were.
class MEZZO_API BatchNorm : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  Tensor weight, bias, running_mean, running_var;

 protected:
  BatchNorm(const char* name, const BatchNorm2dOptions&, int least_dims, int most_dims);

 private:
  const char* name_;
  double eps_, momentum_;
  int least_dims_, most_dims_;
};
using BatchNorm1dOptions = BatchNorm2dOptions;
/// x (N, C) or (N, C, L).
class MEZZO_API BatchNorm1d : public BatchNorm {
 public:
  explicit BatchNorm1d(const BatchNorm1dOptions&);
};
/// x (N, C, H, W).
class MEZZO_API BatchNorm2d : public BatchNorm {
 public:
  explicit BatchNorm2d(const BatchNorm2dOptions&);
};

struct GroupNormOptions {
  int groups = 0;
  std::int64_t dim = 0;  ///< channels
  double eps = 1e-5;
  bool affine = true;
};
/// group_norm of x (N, dim, ...); weight and bias (dim), 1 and 0 at first, undefined unless affine.
class MEZZO_API GroupNorm : public Module {
 public:
  explicit GroupNorm(const GroupNormOptions&);
  Tensor forward(const Tensor& x) override;
  Tensor weight, bias;

 private:
  int groups_;
  double eps_;
};

/// max_pool2d of x (N, C, H, W) or (C, H, W).
class MEZZO_API MaxPool2d : public Module {
 public:
  explicit MaxPool2d(PoolOptions);
  Tensor forward(const Tensor& x) override;

 private:
  PoolOptions options_;
};
/// avg_pool2d of x (N, C, H, W) or (C, H, W).
class MEZZO_API AvgPool2d : public Module {
 public:
  explicit AvgPool2d(PoolOptions);
  Tensor forward(const Tensor& x) override;

 private:
  PoolOptions options_;
};

struct DropoutOptions {
  double p = 0.5;  ///< probability that an element becomes 0; Error unless 0 <= p < 1
};
/// dropout() in training, x itself in eval().
class MEZZO_API Dropout : public Module {
 public:
  explicit Dropout(DropoutOptions = {});
  Tensor forward(const Tensor& x) override;

 private:
  double p_;
};

/// Runs its modules one after the other; their names are "0", "1", ...
class MEZZO_API Sequential : public Module {
 public:
  explicit Sequential(std::vector<std::shared_ptr<Module>>);
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<std::shared_ptr<Module>> parts_;
};

struct MlpOptions {
  std::int64_t in = 0, width = 0, out = 0;
  int layers = 1;
};
/// `layers` hidden layers of `width` with GELU between, and a linear layer to `out`.
class MEZZO_API Mlp : public Module {
 public:
  explicit Mlp(MlpOptions);
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<std::shared_ptr<Linear>> parts_;
};

struct AttentionOptions {
  std::int64_t dim = 0;  ///< width of queries, keys, values and the result: `heads` times a head's size D
  int heads = 1;
  int kv_heads = 0;     ///< 0: heads; else heads is a multiple of it, and each key head serves heads / kv_heads neighbouring query heads
  bool bias = true;     ///< of all four projections
  bool causal = false;  ///< query i sees keys j <= i + Tk - Tq
  double dropout = 0;   ///< of the probabilities, when training
};
/// Multi-head attention (Vaswani et al., arXiv 1706.03762), with fewer key heads on request (Ainslie et al., arXiv 2305.13245):
/// out_proj(softmax(q k^T / sqrt(D) + mask) v), head by head, q, k and v out of q_proj (dim, dim), k_proj and v_proj (kv_heads D, dim); out_proj
/// is (dim, dim). All four are Linear, at first too. torch.nn.MultiheadAttention's in_proj_weight is their three weights, one below the other.
/// Under autocast the products are 16-bit, scores and softmax f32, the result is of autocast's dtype, as a Linear's.
/// Errors: heads do not divide dim, kv_heads do not divide heads, inputs or a mask of other shapes.
class MEZZO_API Attention : public Module {
 public:
  explicit Attention(AttentionOptions);
  Tensor forward(const Tensor& x) override;  ///< self-attention: (B, T, dim) -> (B, T, dim)
  /// query (B, Tq, dim), key and value (B, Tk, dim) -> (B, Tq, dim). mask: boolean, true where a query may look (torch's module says where it may
  /// not), or floating, added to the scores; broadcast to (B, heads, Tq, Tk) and without a gradient. A query that sees no key takes up zeros.
  Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask = {});
  using Module::operator();
  Tensor operator()(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& mask = {}) { return forward(query, key, value, mask); }
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, out_proj;

 private:
  AttentionOptions options_;
};

// ---- recurrent layers: x (T, B, in), or (B, T, in) with .batch_first, or (T, in); y has `hidden` values a direction ---------------
// Parameters are named as in torch: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, the next layer's ..._l1, the second direction's
// ..._l0_reverse; gates stand in the order i f g o (LSTM), r z n (GRU). Uniform in +-1/sqrt(hidden) at first.

struct LstmOptions {
  std::int64_t in = 0, hidden = 0;
  int layers = 1;
  bool bias = true;
  bool batch_first = false;
  bool bidirectional = false;
  double dropout = 0;  ///< of each layer's output but the last's, when training
};
using GruOptions = LstmOptions;
struct RnnOptions {
  std::int64_t in = 0, hidden = 0;
  int layers = 1;
  bool bias = true;
  bool batch_first = false;
  bool bidirectional = false;
  double dropout = 0;
  bool relu = false;  ///< instead of tanh
};
/// h, and the LSTM's c: (layers directions, B, hidden), without B for an x of two dimensions; of a cell (B, hidden). Undefined: zeros.
struct RecurrentState {
  Tensor h, c;
};
struct RecurrentResult {
  Tensor y;
  RecurrentState state;  ///< after the last step
};

/// What Rnn, Lstm and Gru share. Errors: sizes that do not fit, a c given to other than an LSTM.
class MEZZO_API Recurrent : public Module {
 public:
  Tensor forward(const Tensor& x) override;  ///< y, from states of zero
  RecurrentResult forward(const Tensor& x, const RecurrentState& before);
  using Module::operator();
  RecurrentResult operator()(const Tensor& x, const RecurrentState& before) { return forward(x, before); }

 protected:
  enum class Kind : std::uint8_t { rnn_tanh, rnn_relu, lstm, gru };
  Recurrent(Kind, const char* name, const LstmOptions&);

 private:
  struct Direction {
    Tensor w_ih, w_hh, b_ih, b_hh;
  };
  Kind kind_;
  const char* name_;
  LstmOptions options_;
  std::vector<Direction> directions_;  ///< layer by layer
};
class MEZZO_API Rnn : public Recurrent {
 public:
  explicit Rnn(RnnOptions);
};
/// Hochreiter & Schmidhuber 1997, with a forget gate.
class MEZZO_API Lstm : public Recurrent {
 public:
  explicit Lstm(LstmOptions);
};
/// Cho et al., arXiv 1406.1078, with the reset gate behind the product, as in cuDNN and torch.
class MEZZO_API Gru : public Recurrent {
 public:
  explicit Gru(GruOptions);
};

struct LstmCellOptions {
  std::int64_t in = 0, hidden = 0;
  bool bias = true;
};
using GruCellOptions = LstmCellOptions;
struct RnnCellOptions {
  std::int64_t in = 0, hidden = 0;
  bool bias = true;
  bool relu = false;
};
/// One step of x (B, in): weight_ih (G hidden, in), weight_hh (G hidden, hidden), bias_ih, bias_hh (G hidden).
class MEZZO_API LstmCell : public Module {
 public:
  explicit LstmCell(LstmCellOptions);
  Tensor forward(const Tensor& x) override;  ///< h, from states of zero
  RecurrentState forward(const Tensor& x, const RecurrentState& before);
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};
class MEZZO_API GruCell : public Module {
 public:
  explicit GruCell(GruCellOptions);
  Tensor forward(const Tensor& x) override;
  Tensor forward(const Tensor& x, const Tensor& h);
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};
class MEZZO_API RnnCell : public Module {
 public:
  explicit RnnCell(RnnCellOptions);
  Tensor forward(const Tensor& x) override;
  Tensor forward(const Tensor& x, const Tensor& h);
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;

 private:
  bool relu_;
};

}  // namespace mezzo::nn
