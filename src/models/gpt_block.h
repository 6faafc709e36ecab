// gpt_block.h - one pre-norm block of Gpt.
#pragma once

#include <mezzo/models.h>

#include "models/projection.h"

namespace mezzo::models {

struct Gpt::Block final : nn::Module {
  /// Two linear layers under the names Hugging Face gives them: attention's and the MLP's.
  struct Part final : nn::Module {
    /// `in` of (width, inner), `out` of (back, width).
    Part(const GptOptions&, const Maker&, const std::string& path, const char* in_name, std::int64_t inner, std::int64_t back);
    std::shared_ptr<Projection> in, out;
  };
  Block(const GptOptions&, const Maker&, const std::string& path);
  Tensor run(const Tensor& x, int layer, const Sequence&);
  Tensor attend(const Tensor& qkv, int layer, const Sequence&, double dropout);

  std::shared_ptr<nn::LayerNorm> ln_1, ln_2;
  std::shared_ptr<Part> attn, mlp;
  int heads;
  double dropout_p;
};

}  // namespace mezzo::models
