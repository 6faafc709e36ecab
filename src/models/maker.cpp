// maker.cpp
#include "models/maker.h"

#include "autograd/context.h"
#include "nn/init.h"

namespace mezzo::models {

Tensor Maker::matrix(const std::string& path, std::int64_t rows, std::int64_t cols, double std) const {
  if (!file_) return nn::normal({rows, cols}, std);
  const MemoryScope scope(Memory::weights);
  return file_->tensor(path, {rows, cols}, dtype_);
}

Tensor Maker::vector(const std::string& path, std::int64_t n, double value) const {
  const MemoryScope scope(Memory::weights);
  return file_ ? file_->tensor(path, {n}, Dtype::f32) : full({n}, value);
}

std::shared_ptr<const BlockMatrix> Maker::blocks(const std::string& path, std::int64_t rows, std::int64_t cols) const {
  if (!file_ || !keep_blocks_) return nullptr;
  auto b = file_->blocks(path, {rows, cols});
  if (b) in_blocks_.push_back(path);
  return b;
}

}  // namespace mezzo::models
