// example_batches.cpp - which examples go together, and what a model is given of them.
#include "text/example_batches.h"

#include <algorithm>
#include <bit>

#include <fmt/core.h>

#include "core/fail.h"
#include "text/permutation.h"

namespace mezzo::text {
namespace {

constexpr std::string_view kOp = "batches";
constexpr std::uint64_t kRows = std::uint64_t{1} << 61;  // with an epoch's number: the order of its rows

std::uint64_t place(const Permutation& order, std::size_t i, bool shuffle) { return shuffle ? order(i) : i; }

/// The room that is left in rows of equal size, and the first of them that takes a document: a tree whose nodes know the most room below them.
class Rows {
 public:
  /// As many rows as there may be documents, all of them empty.
  Rows(std::size_t count, std::int64_t size) : leaves_(std::bit_ceil(count)), room_(2 * leaves_, size) {}

  std::size_t place(std::int64_t length) {
    std::size_t node = 1;
    while (node < leaves_) node = room_[2 * node] >= length ? 2 * node : 2 * node + 1;
    room_[node] -= length;
    const std::size_t row = node - leaves_;
    while ((node /= 2) > 0) room_[node] = std::max(room_[2 * node], room_[2 * node + 1]);
    return row;
  }

 private:
  std::size_t leaves_;
  std::vector<std::int64_t> room_;
};

/// An example's inputs and targets, from `at` on.
void put(MicroBatch& batch, const Example& e, std::size_t at) {
  for (std::size_t i = 0; i + 1 < e.ids.size(); ++i) {
    batch.ids[at + i] = e.ids[i];
    if (!e.counted[i + 1]) continue;
    batch.targets[at + i] = e.ids[i + 1];
    ++batch.counted;
  }
  ++batch.examples;
  batch.tokens += e.length();
}

MicroBatch empty_batch(std::int64_t rows, std::int64_t columns, std::int32_t padding) {
  MicroBatch batch;
  batch.rows = rows;
  batch.columns = columns;
  batch.ids.assign(static_cast<std::size_t>(rows * columns), padding);
  batch.targets.assign(static_cast<std::size_t>(rows * columns), MicroBatch::kIgnored);
  return batch;
}

}  // namespace

ExampleBatches::ExampleBatches(const ExampleSet& set, const ExampleBatchesOptions& options) : set_(&set), options_(options) {
  if (options.batch < 1 || options.window < 1)
    fail(kOp, fmt::format("batches of {} by {} tokens, at least 1 by 1 was expected", options.batch, options.window));
  if (set.examples.empty()) fail(kOp, "no examples, at least one was expected");
  for (const Example& e : set.examples) {
    if (e.length() > options.window)
      fail(kOp, fmt::format("an example of {} tokens (line {}), at most {} were expected", e.length(), e.line, options.window));
    if (e.targets() == 0) fail(kOp, fmt::format("an example none of whose tokens carries loss (line {})", e.line));
  }
  plan_ = plan_of(0);
}

ExampleBatches::Plan ExampleBatches::plan_of(std::int64_t epoch) const {
  const std::size_t n = set_->examples.size();
  const auto number = static_cast<std::uint64_t>(epoch);
  const Permutation order(n, options_.seed, number);
  Plan rows;
  if (options_.pack) {
    Rows space(n, options_.batch * options_.window);
    for (std::size_t i = 0; i < n; ++i) {
      const auto example = place(order, i, options_.shuffle);
      const std::size_t row = space.place(set_->examples[example].length());
      if (row >= rows.size()) rows.resize(row + 1);
      rows[row].push_back(static_cast<std::uint32_t>(example));
    }
  } else {
    rows.resize((n + static_cast<std::size_t>(options_.batch) - 1) / static_cast<std::size_t>(options_.batch));
    for (std::size_t i = 0; i < n; ++i)
      rows[i / static_cast<std::size_t>(options_.batch)].push_back(static_cast<std::uint32_t>(place(order, i, options_.shuffle)));
  }
  if (!options_.shuffle) return rows;
  // First-fit leaves the emptiest rows last, and padding fewer examples: these must not always end an epoch.
  const Permutation row_order(rows.size(), options_.seed, kRows | number);
  Plan out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) out[row_order(i)] = std::move(rows[i]);
  return out;
}

void ExampleBatches::seek(std::int64_t position) {
  if (position < 0) fail(kOp, fmt::format("position {}, 0 or more was expected", position));
  epoch_ = epoch_begin_ = 0;
  for (plan_ = plan_of(0); epoch_begin_ + static_cast<std::int64_t>(plan_.size()) <= position; plan_ = plan_of(++epoch_))
    epoch_begin_ += static_cast<std::int64_t>(plan_.size());
  position_ = position;
}

std::int64_t ExampleBatches::batches_of(std::int64_t epochs) const {
  std::int64_t sum = 0;
  for (std::int64_t e = 0; e < epochs; ++e) sum += static_cast<std::int64_t>(plan_of(e).size());
  return sum;
}

std::vector<MicroBatch> ExampleBatches::next(int k) {
  std::vector<MicroBatch> out;
  for (int i = 0; i < k; ++i, ++position_) {
    if (position_in_epoch() == static_cast<std::int64_t>(plan_.size())) {
      epoch_begin_ = position_;
      plan_ = plan_of(++epoch_);
    }
    const auto& examples = plan_[static_cast<std::size_t>(position_in_epoch())];
    out.push_back(options_.pack ? packed(examples) : padded(examples));
  }
  return out;
}

MicroBatch ExampleBatches::packed(std::span<const std::uint32_t> examples) const {
  MicroBatch batch = empty_batch(1, options_.batch * options_.window, options_.padding);
  std::int64_t at = 0;
  for (const std::uint32_t i : examples) {
    const Example& e = set_->examples[i];
    put(batch, e, static_cast<std::size_t>(at));
    batch.lengths.push_back(e.length());
    at += e.length();
  }
  for (; at < batch.columns; at += batch.lengths.back()) batch.lengths.push_back(std::min(batch.columns - at, options_.window));
  return batch;
}

MicroBatch ExampleBatches::padded(std::span<const std::uint32_t> examples) const {
  std::int64_t longest = 0;
  for (const std::uint32_t i : examples) longest = std::max(longest, set_->examples[i].length());
  constexpr std::int64_t kUnit = 8;  // rows of few different lengths
  const std::int64_t columns = std::min((longest + kUnit - 1) / kUnit * kUnit, options_.window);
  MicroBatch batch = empty_batch(static_cast<std::int64_t>(examples.size()), columns, options_.padding);
  for (std::size_t row = 0; row < examples.size(); ++row) put(batch, set_->examples[examples[row]], row * static_cast<std::size_t>(columns));
  return batch;
}

}  // namespace mezzo::text
