// maker.cpp - makes matrices, vectors and blocks, drawn at random or read.
#include "models/maker.h"

#include <algorithm>

#include <fmt/format.h>

#include <fmt/ranges.h>

#include <mezzo/ops.h>

#include "autograd/context.h"
#include "core/dry_run.h"
#include "core/fail.h"
#include "nn/init.h"

namespace mezzo::models {

Maker::Maker(const ModelFile& file, const LoadOptions& o)
    : file_(&file), dtype_(o.dtype), keep_blocks_(o.keep_blocks), keep_table_(o.keep_blocks && o.keep_table), dropout_(o.dropout) {
  if (o.quantize.empty()) return;
  const auto named = std::find(kQuantizeNames.begin(), kQuantizeNames.end(), o.quantize);
  if (named == kQuantizeNames.end())
    fail("load_pretrained", fmt::format("quantize = {} given, one of {} wanted", o.quantize, fmt::join(kQuantizeNames, ", ")),
         near_names(o.quantize, kQuantizeNames));
  if (!o.keep_blocks) fail("load_pretrained", "quantize without keep_blocks given: the blocks would not be kept");
  format_ = kQuantizeFormats[static_cast<std::size_t>(named - kQuantizeNames.begin())];
}

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
  if (!b && format_) {
    b = quantize(path, file_->tensor(path, {rows, cols}, Dtype::f32));
    ++quantized_;
  }
  if (b) in_blocks_.push_back(path);
  return b;
}

std::shared_ptr<const BlockMatrix> Maker::table(const std::string& path, std::int64_t rows, std::int64_t cols) const {
  if (!file_ || !keep_table_) return nullptr;
  auto b = file_->blocks(path, {rows, cols});
  if (b) in_blocks_.push_back(path);
  return b;
}

std::shared_ptr<const BlockMatrix> Maker::quantize(const std::string& path, const Tensor& w) const {
  const auto facts = kernels::facts(*format_);
  if (w.size(1) % facts.elements != 0)
    fail("load_pretrained",
         fmt::format("`{}` has rows of {} elements, whole blocks of {} wanted for {}", path, w.size(1), facts.elements, facts.name));
  const double limit = kernels::largest(*format_), most = DryRun::active() ? 0 : amax(abs(w)).item();
  if (!(most <= limit)) fail("load_pretrained", fmt::format("`{}` has an element of {}, at most {} wanted in {}", path, most, limit, facts.name));
  BlockMatrix m{*format_, nullptr, w.size(0), w.size(1), nullptr};
  const MemoryScope scope(Memory::weights);
  const Tensor own = make_tensor({m.rows * m.row_bytes()}, Dtype::u8);
  kernels::quantize(kernels::cpu_queue(), m.format, static_cast<const float*>(data(w)), mutable_data(own), w.numel());
  m.blocks = static_cast<const std::byte*>(data(own));
  m.owner = std::make_shared<Tensor>(own);
  return std::make_shared<BlockMatrix>(m);
}

}  // namespace mezzo::models
