// maker.h - where the weights of a new model come from: the random generator, or a file.
#pragma once

#include "models/model_file.h"

namespace mezzo::models {

class Maker {
 public:
  Maker() = default;  ///< random
  /// Out of `file`, which must live until the model is made. Matrices in `dtype`, or left in the file's blocks; vectors always f32.
  Maker(const ModelFile& file, Dtype dtype, bool keep_blocks) : file_(&file), dtype_(dtype), keep_blocks_(keep_blocks) {}

  /// (rows, cols), normal with `std` where it is random.
  Tensor matrix(const std::string& path, std::int64_t rows, std::int64_t cols, double std) const;
  /// (n), all `value` where it is not read.
  Tensor vector(const std::string& path, std::int64_t n, double value) const;
  /// The matrix as blocks where it is to stay in them, else null; matrix() has it then.
  std::shared_ptr<const BlockMatrix> blocks(const std::string& path, std::int64_t rows, std::int64_t cols) const;
  /// Paths whose weights blocks() gave.
  const std::vector<std::string>& in_blocks() const { return in_blocks_; }

 private:
  const ModelFile* file_ = nullptr;
  Dtype dtype_ = Dtype::f32;
  bool keep_blocks_ = false;
  mutable std::vector<std::string> in_blocks_;
};

}  // namespace mezzo::models
