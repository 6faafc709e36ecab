// maker.h - where the weights of a new model come from: the random generator, or a file.
#pragma once

#include <array>

#include "core/fail.h"
#include "models/model_file.h"

namespace mezzo::models {

/// What LoadOptions::quantize can be, and the formats of these names.
inline constexpr std::array<std::string_view, 3> kQuantizeNames{"q8_0", "q4_0", "nf4"};
inline constexpr std::array<kernels::Format, 3> kQuantizeFormats{kernels::Format::q8_0, kernels::Format::q4_0, kernels::Format::nf4};

inline constexpr int kMostLayers = 10'000;

/// The sizes that every model of layers has. Error if one is below 1, or for more than kMostLayers, whose mere objects would fill the memory.
template <class Options> void check_sizes(std::string_view op, const Options& o) {
  if (o.layers < 1 || o.heads < 1 || o.width < 1)
    fail(op, fmt::format("{} layers, {} heads, width {} given, 1 or more of each wanted", o.layers, o.heads, o.width));
  if (o.layers > kMostLayers) fail(op, fmt::format("{} layers given, at most {} wanted", o.layers, kMostLayers));
}

class Maker {
 public:
  Maker() = default;  ///< random
  /// Out of `file`, which must live until the model is made. Matrices as the options say; vectors always f32.
  Maker(const ModelFile& file, const LoadOptions& o);

  /// (rows, cols), normal with `std` where it is random.
  Tensor matrix(const std::string& path, std::int64_t rows, std::int64_t cols, double std) const;
  /// (n), all `value` where it is not read.
  Tensor vector(const std::string& path, std::int64_t n, double value) const;
  /// The matrix as blocks where it is to be in them, the file's or new ones, else null; matrix() has it then.
  std::shared_ptr<const BlockMatrix> blocks(const std::string& path, std::int64_t rows, std::int64_t cols) const;
  /// The same for an embedding or a head: the file's, where they are to stay in blocks too.
  std::shared_ptr<const BlockMatrix> table(const std::string& path, std::int64_t rows, std::int64_t cols) const;
  Dtype dtype() const { return dtype_; }
  bool is_random() const { return !file_; }
  /// A GPT's, instead of its options'.
  std::optional<double> dropout() const { return dropout_; }
  /// Paths whose weights blocks() or table() gave.
  const std::vector<std::string>& in_blocks() const { return in_blocks_; }
  /// How many of them were not in the file's.
  int quantized() const { return quantized_; }

 private:
  std::shared_ptr<const BlockMatrix> quantize(const std::string& path, const Tensor& w) const;

  const ModelFile* file_ = nullptr;
  Dtype dtype_ = Dtype::f32;
  bool keep_blocks_ = false, keep_table_ = false;
  std::optional<double> dropout_ = {};
  std::optional<kernels::Format> format_ = {};  // of new blocks
  mutable std::vector<std::string> in_blocks_;
  mutable int quantized_ = 0;
};

}  // namespace mezzo::models
