// batches.cpp - batches of windows.
#include "text/batches.h"

#include <algorithm>

#include <fmt/core.h>

#include "core/fail.h"
#include "text/permutation.h"

namespace mezzo::text {
namespace {

std::int64_t checked_windows(const TokenStream& stream, std::int64_t batch, std::int64_t seq) {
  if (batch < 1 || seq < 1) fail("batches", fmt::format("batches of {} by {} tokens, at least 1 by 1 was expected", batch, seq));
  const std::int64_t windows = window_count(stream.size(), seq);
  if (windows == 0) fail("batches", fmt::format("{} tokens, at least {} were expected for one sequence and its next token", stream.size(), seq + 1));
  return windows;
}

void check_shape(std::span<std::int32_t> x, std::span<std::int32_t> y, std::int64_t batch, std::int64_t seq) {
  MEZZO_CHECK(x.size() == y.size() && x.size() == static_cast<std::size_t>(batch * seq));
}

/// The T tokens from `first` on, and one further.
void read_window(const TokenStream& stream, std::int64_t first, std::int64_t seq, std::int32_t* x, std::int32_t* y) {
  stream.read(first, {x, static_cast<std::size_t>(seq)});
  stream.read(first + 1, {y, static_cast<std::size_t>(seq)});
}

}  // namespace

Batches::Batches(const TokenStream& stream, const BatchesOptions& options)
    : stream_(&stream), options_(options), windows_(checked_windows(stream, options.batch, options.seq)) {}

void Batches::seek(std::int64_t position) {
  if (position < 0) fail("batches", fmt::format("position {}, 0 or more was expected", position));
  position_ = position;
}

void Batches::next(std::span<std::int32_t> x, std::span<std::int32_t> y) {
  check_shape(x, y, options_.batch, options_.seq);
  for (std::int64_t row = 0; row < options_.batch; ++row, ++position_) {
    const auto epoch = static_cast<std::uint64_t>(position_ / windows_), place = static_cast<std::uint64_t>(position_ % windows_);
    const Permutation order(static_cast<std::uint64_t>(windows_), options_.seed, epoch);
    read_window(*stream_, static_cast<std::int64_t>(order(place)) * options_.seq, options_.seq, &x[row * options_.seq], &y[row * options_.seq]);
  }
}

EvalBatches::EvalBatches(const TokenStream& stream, const EvalBatchesOptions& options) : stream_(&stream), options_(options) {
  windows_ = checked_windows(stream, options.batch, options.seq);
  auto& stride = options_.stride;
  if (stride == 0) stride = options.seq;
  if (stride < 1 || stride > options.seq) fail("batches", fmt::format("a stride of {} given, 1 to {} (a window) wanted", stride, options.seq));
  windows_ = (stream.size() - 1 - options.seq) / stride + 1;
}

std::int64_t EvalBatches::next(std::span<std::int32_t> x, std::span<std::int32_t> y) {
  check_shape(x, y, options_.batch, columns());
  const std::int64_t rows = std::min(options_.batch, windows_ - position_), lead = columns() - options_.seq;
  for (std::int64_t row = 0; row < rows; ++row, ++position_) {
    std::int32_t *ids = &x[row * columns()], *targets = &y[row * columns()];
    if (options_.begin) *ids = *options_.begin, *targets = kIgnored;
    read_window(*stream_, position_ * options_.stride, options_.seq, ids + lead, targets + lead);
    if (position_ > 0) std::fill_n(targets + lead, options_.seq - options_.stride, kIgnored);
  }
  std::fill(x.begin() + rows * columns(), x.end(), 0);
  std::fill(y.begin() + rows * columns(), y.end(), kIgnored);
  return rows;
}

}  // namespace mezzo::text
