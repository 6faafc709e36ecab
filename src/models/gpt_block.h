// gpt_block.h - one pre-norm block of Gpt.
#pragma once

#include <mezzo/models.h>

namespace mezzo::models {

struct Gpt::Block final : nn::Module {
  /// Two linear layers under the names Hugging Face gives them: attention's and the MLP's.
  struct Part final : nn::Module {
    Part(std::shared_ptr<nn::Linear> in, const char* in_name, std::shared_ptr<nn::Linear> out);
    std::shared_ptr<nn::Linear> in, out;
  };
  explicit Block(const GptOptions&);
  Tensor run(const Tensor& x, int layer, const Sequence&);
  Tensor attend(const Tensor& qkv, int layer, const Sequence&, double dropout);

  std::shared_ptr<nn::LayerNorm> ln_1, ln_2;
  std::shared_ptr<Part> attn, mlp;
  int heads;
  double dropout_p;
};

}  // namespace mezzo::models
