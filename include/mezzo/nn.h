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
  void drop_parameter(const std::string& name);  ///< that a module has put elsewhere; Error if there is none
  template <class M> std::shared_ptr<M> register_module(std::string name, std::shared_ptr<M> m) {
    add_module(std::move(name), m);
    return m;
  }
  /// Marks a parameter that stays f32 in every recipe but pure: norm weights, biases, adapters.
  static void mark_exempt(const Tensor&);
  /// Marks a 16-bit leaf that several contributions reach before each step (a tied head): its gradient is kept in f32 until then.
  static void mark_shared(const Tensor&);

 private:
  void add_module(std::string name, std::shared_ptr<Module>);
  void name_parameters(const std::string& prefix);
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
class MEZZO_API RmsNorm : public Module {
 public:
  explicit RmsNorm(RmsNormOptions);
  Tensor forward(const Tensor& x) override;
  Tensor weight;

 private:
  double eps_;
};

struct DropoutOptions {
  double p = 0.5;
};
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

}  // namespace mezzo::nn
