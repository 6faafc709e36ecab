// table.h - the embedding of a language model, or its head: a matrix (V, C) in memory, or in a file's blocks where the model is only asked.
#pragma once

#include <mezzo/nn.h>

#include "models/maker.h"

namespace mezzo::models {

class Table final : public nn::Module {
 public:
  Table(const Maker&, const std::string& path, std::int64_t rows, std::int64_t cols, double std);
  Tensor forward(const Tensor& ids) override;  ///< its rows
  Tensor project(const Tensor& h) const;       ///< h (..., C) -> (..., V)
  Tensor dense() const;                        ///< all of it: the weight, or unpacked
  Dtype dtype() const { return weight.defined() ? weight.dtype() : dtype_; }
  const BlockMatrix* blocks() const { return blocks_.get(); }

  Tensor weight;  ///< undefined where it lies in blocks

 private:
  Dtype dtype_;
  std::shared_ptr<const BlockMatrix> blocks_;
};

}  // namespace mezzo::models
