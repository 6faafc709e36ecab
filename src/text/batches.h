// batches.h - batches of windows: shuffled for training, in order for evaluation.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "text/corpus.h"

namespace mezzo::text {

/// Window w of a stream of n tokens is tokens [w T, w T + T]: T inputs and, one further, their T targets. Windows that follow each other
/// share one token, the last target of one being the first input of the next; the incomplete tail is dropped.
inline std::int64_t window_count(std::int64_t tokens, std::int64_t seq) { return tokens > seq ? (tokens - 1) / seq : 0; }

struct BatchesOptions {
  std::int64_t batch = 1;  ///< B, windows of a batch
  std::int64_t seq = 256;  ///< T, tokens of a window
  std::uint64_t seed = 0;
};

/// Batches for training without end: every epoch takes each window once, in an order of its own that depends on the seed and the epoch's
/// number only. A batch may reach over the end of an epoch. The whole state is position().
class Batches {
 public:
  /// `stream` must outlive this object. Error if it has less than one window.
  Batches(const TokenStream& stream, const BatchesOptions&);
  /// Windows of an epoch.
  std::int64_t windows() const noexcept { return windows_; }
  /// Windows taken since the beginning of training: what a checkpoint keeps.
  std::int64_t position() const noexcept { return position_; }
  void seek(std::int64_t position);
  /// The next batch: inputs x (B, T) and their next tokens y (B, T).
  void next(std::span<std::int32_t> x, std::span<std::int32_t> y);

 private:
  const TokenStream* stream_;
  BatchesOptions options_;
  std::int64_t windows_, position_ = 0;
};

struct EvalBatchesOptions {
  std::int64_t batch = 1, seq = 256;       ///< B windows of T tokens
  std::int64_t stride = 0;                 ///< from window to window, 1 to T; 0: T. With less, targets that a window before had carry no loss
  std::optional<std::int32_t> begin = {};  ///< stands before each window, without a loss of its own
};

/// All windows once, in order, for evaluation. The last batch is filled up with rows of input 0 whose targets are kIgnored, so every batch
/// has the same shape and the loss counts only what is there.
class EvalBatches {
 public:
  static constexpr std::int32_t kIgnored = -100;  // cross_entropy's default ignore_index
  EvalBatches(const TokenStream& stream, const EvalBatchesOptions&);
  std::int64_t windows() const noexcept { return windows_; }
  /// Tokens of a row: T, and one more with `begin`.
  std::int64_t columns() const noexcept { return options_.seq + (options_.begin ? 1 : 0); }
  /// Fills x (B, columns) and y (B, columns); returns how many rows are windows, 0 at the end.
  std::int64_t next(std::span<std::int32_t> x, std::span<std::int32_t> y);

 private:
  const TokenStream* stream_;
  EvalBatchesOptions options_;
  std::int64_t windows_, position_ = 0;
};

}  // namespace mezzo::text
