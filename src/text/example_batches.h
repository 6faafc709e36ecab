// example_batches.h - micro-batches of examples: shuffled, packed side by side or padded, a step's at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/examples.h"

namespace mezzo::text {

/// Inputs and targets of one forward pass. targets[t] is the token after ids[t]; kIgnored where that carries no loss or there is none.
struct MicroBatch {
  static constexpr std::int32_t kIgnored = -100;  // cross_entropy's default ignore_index
  std::int64_t rows = 0, columns = 0;
  std::vector<std::int32_t> ids, targets;  ///< (rows, columns)
  std::vector<std::int64_t> lengths;       ///< of the documents side by side in the one row (models.h, Sequence); empty: a document a row
  std::int64_t counted = 0;                ///< targets that carry loss, at least one
  std::int64_t examples = 0;
  std::int64_t tokens = 0;  ///< inputs of the examples, padding not counted
};

struct ExampleBatchesOptions {
  std::int64_t batch = 1;     ///< B
  std::int64_t window = 256;  ///< T, at least the longest example's length()
  /// true: (1, B T), as many whole examples as find room, each attending to itself; what is left is documents of padding, T long at most, without
  /// loss. false: (B, n), an example a row, padded to the longest, in eights; an epoch's last batch may have fewer rows.
  bool pack = true;
  bool shuffle = true;  ///< false: the set's order, every epoch alike
  std::uint64_t seed = 0;
  std::int32_t padding = 0;  ///< the id that stands where there is no token
};

/// Micro-batches without end: every epoch takes each example once, in an order of its own that depends on the seed and the epoch's number only.
/// Packing is first-fit in that order, and the rows come in an order of their own. The whole state is position().
class ExampleBatches {
 public:
  /// `set` must outlive this object. Error if it is empty, an example longer than the window, or one has no target that carries loss.
  ExampleBatches(const ExampleSet& set, const ExampleBatchesOptions&);

  /// Micro-batches taken since the beginning of training: what a checkpoint keeps, with the set's fingerprint.
  std::int64_t position() const noexcept { return position_; }
  void seek(std::int64_t position);
  /// The epoch that the next micro-batch belongs to, and where in it.
  std::int64_t epoch() const noexcept { return epoch_; }
  std::int64_t position_in_epoch() const noexcept { return position_ - epoch_begin_; }
  /// Micro-batches of the first `epochs` epochs: packing makes of one a few more or less than of another.
  std::int64_t batches_of(std::int64_t epochs) const;

  /// The next k, which may reach over the end of an epoch: a step's, so that its loss can be divided by the tokens of all of them (counted).
  std::vector<MicroBatch> next(int k);

 private:
  using Plan = std::vector<std::vector<std::uint32_t>>;  // by micro-batch: its examples
  Plan plan_of(std::int64_t epoch) const;
  MicroBatch packed(std::span<const std::uint32_t> examples) const;
  MicroBatch padded(std::span<const std::uint32_t> examples) const;

  const ExampleSet* set_;
  ExampleBatchesOptions options_;
  std::int64_t position_ = 0, epoch_ = 0, epoch_begin_ = 0;
  Plan plan_;  // of epoch_
};

}  // namespace mezzo::text
