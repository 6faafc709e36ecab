// projection.h - a linear layer inside a language model: its weight in memory or in a file's blocks, and the adapter that attaches to it.
#pragma once

#include <mezzo/models.h>

#include "models/maker.h"

namespace mezzo::models {

/// x w^T (+ b) (+ residual) (+ scale (x A^T) B^T, dropped out before A). weight (out, in), bias (out); A (r, in), B (out, r).
class Projection final : public nn::Module {
 public:
  /// `path`: the parameters' prefix in the whole model, where the maker looks for them.
  Projection(const Maker&, const std::string& path, std::int64_t in, std::int64_t out, bool bias, double std);
  Tensor forward(const Tensor& x) override { return run(x, {}); }
  Tensor run(const Tensor& x, const Tensor& residual);

  /// Attaches an adapter that changes nothing yet: A uniform as torch's linear layers, B zeros (Hu et al., arXiv 2106.09685).
  void add_lora(const LoraOptions&);
  bool has_lora() const { return lora_a_ != nullptr; }
  const LoraOptions& lora() const { return lora_; }  ///< as add_lora() got them
  Tensor lora_a() const;
  Tensor lora_b() const;
  double lora_scale() const;
  /// (out, in) f32: the weight, out of its blocks, and what the adapter adds to it.
  Tensor merged() const;
  std::int64_t in() const { return in_; }
  std::int64_t out() const { return out_; }

  Tensor weight;  ///< undefined where it lies in blocks
  Tensor bias;

 private:
  struct Factor;
  std::int64_t in_, out_;
  std::shared_ptr<const BlockMatrix> blocks_;
  std::shared_ptr<Factor> lora_a_, lora_b_;
  LoraOptions lora_;
};

/// Whether any of the model's matrices lies in blocks.
bool has_blocks(const LanguageModel&);

}  // namespace mezzo::models
