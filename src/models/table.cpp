// table.cpp - rows, product and copy of either kind.
#include "models/table.h"

#include <mezzo/ops.h>

namespace mezzo::models {

Table::Table(const Maker& make, const std::string& path, std::int64_t rows, std::int64_t cols, double std)
    : dtype_(make.dtype()), blocks_(make.table(path + ".weight", rows, cols)) {
  if (!blocks_) weight = register_parameter("weight", make.matrix(path + ".weight", rows, cols, std));
}

Tensor Table::forward(const Tensor& ids) { return blocks_ ? block_embedding(ids, *blocks_, dtype_) : embedding(ids, weight); }
Tensor Table::project(const Tensor& h) const { return blocks_ ? block_linear(h, blocks_, {}, {}) : linear(h, weight); }
Tensor Table::dense() const { return blocks_ ? unpacked(*blocks_, dtype_) : weight; }

}  // namespace mezzo::models
