// example_batches_test.cpp - every example once an epoch, whole, apart from the others; the same again from any position.
#include "text/example_batches.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include <doctest/doctest.h>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::test;
using text::Example;
using text::ExampleBatches;
using text::ExampleBatchesOptions;
using text::ExampleSet;
using text::MicroBatch;

namespace {

constexpr std::int32_t kPadding = -7;

/// Examples of 1 to `longest` inputs, whose ids say which they are; some tokens carry loss.
ExampleSet made_up(int count, int longest) {
  ExampleSet set;
  for (int i = 0; i < count; ++i) {
    Example& e = set.examples.emplace_back();
    const int size = 2 + (i * 7919 + i * i) % longest;
    for (int k = 0; k < size; ++k) {
      e.ids.push_back(1000 * (i + 1) + k);
      e.counted.push_back(k == size - 1 || (i + k) % 3 == 0);
    }
    e.line = i + 1;
  }
  return set;
}

/// The documents of a packed batch, or the rows of a padded one, checked against the example that each is; their numbers.
std::vector<int> examples_of(const MicroBatch& b, const ExampleSet& set) {
  REQUIRE(static_cast<std::int64_t>(b.ids.size()) == b.rows * b.columns);
  REQUIRE(b.targets.size() == b.ids.size());
  REQUIRE((b.lengths.empty() || std::accumulate(b.lengths.begin(), b.lengths.end(), std::int64_t{0}) == b.columns));
  std::vector<std::int64_t> lengths = b.lengths;
  if (lengths.empty()) lengths.assign(static_cast<std::size_t>(b.rows), b.columns);
  std::vector<int> out;
  std::size_t at = 0;
  std::int64_t counted = 0;
  for (const std::int64_t length : lengths) {
    const std::size_t n = static_cast<std::size_t>(length);
    std::size_t read = 0;
    if (b.ids[at] != kPadding) {
      const Example& e = set.examples.at(static_cast<std::size_t>(out.emplace_back(b.ids[at] / 1000 - 1)));
      read = static_cast<std::size_t>(e.length());
      REQUIRE(read <= n);
      if (!b.lengths.empty()) REQUIRE(read == n);
      for (std::size_t i = 0; i < read; ++i) {
        REQUIRE(b.ids[at + i] == e.ids[i]);
        REQUIRE(b.targets[at + i] == (e.counted[i + 1] ? e.ids[i + 1] : MicroBatch::kIgnored));
        counted += e.counted[i + 1];
      }
    }
    for (std::size_t i = read; i < n; ++i) REQUIRE((b.ids[at + i] == kPadding && b.targets[at + i] == MicroBatch::kIgnored));
    at += n;
  }
  CHECK(b.counted == counted);
  CHECK(b.counted > 0);
  CHECK(b.examples == static_cast<std::int64_t>(out.size()));
  return out;
}

std::vector<int> epoch_of(ExampleBatches& batches, const ExampleSet& set) {
  std::vector<int> out;
  const std::int64_t epoch = batches.epoch() + (batches.position_in_epoch() > 0);
  const std::int64_t count = batches.batches_of(epoch + 1) - batches.batches_of(epoch);
  for (const MicroBatch& b : batches.next(static_cast<int>(count)))
    for (const int i : examples_of(b, set)) out.push_back(i);
  return out;
}

}  // namespace

TEST_CASE("example batches: every example once an epoch, packed or padded, in an order of its own") {
  const ExampleSet set = made_up(100, 30);
  for (const bool pack : {true, false}) {
    CAPTURE(pack);
    ExampleBatches batches(set, {.batch = 3, .window = 32, .pack = pack, .seed = 5, .padding = kPadding});
    std::vector<std::vector<int>> epochs;
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::vector<int> seen = epochs.emplace_back(epoch_of(batches, set));
      std::sort(seen.begin(), seen.end());
      std::vector<int> all(100);
      std::iota(all.begin(), all.end(), 0);
      CHECK(seen == all);
    }
    CHECK(epochs[0] != epochs[1]);
    CHECK(epochs[1] != epochs[2]);
    ExampleBatches again(set, {.batch = 3, .window = 32, .pack = pack, .seed = 5, .padding = kPadding});
    CHECK(epoch_of(again, set) == epochs[0]);
    ExampleBatches other(set, {.batch = 3, .window = 32, .pack = pack, .seed = 6, .padding = kPadding});
    CHECK(epoch_of(other, set) != epochs[0]);
    ExampleBatches plain(set, {.batch = 3, .window = 32, .pack = pack, .shuffle = false, .padding = kPadding});
    const auto first = epoch_of(plain, set);
    CHECK(first[0] == 0);
    CHECK(first == epoch_of(plain, set));
  }
}

TEST_CASE("example batches: packed rows are full, of one shape, and no document of them is longer than the window") {
  const ExampleSet set = made_up(200, 20);
  ExampleBatches batches(set, {.batch = 4, .window = 20, .padding = kPadding});
  std::int64_t tokens = 0;
  const auto count = batches.batches_of(1);
  for (const MicroBatch& b : batches.next(static_cast<int>(count))) {
    CHECK(b.rows == 1);
    CHECK(b.columns == 80);
    CHECK(*std::max_element(b.lengths.begin(), b.lengths.end()) <= 20);
    tokens += b.columns;
  }
  CHECK(static_cast<double>(set.tokens()) > 0.95 * static_cast<double>(tokens));  // short documents leave little room

  // One short example alone: what is left is padding in documents of the window's length.
  const ExampleSet one = made_up(1, 5);
  const MicroBatch b = ExampleBatches(one, {.batch = 3, .window = 8, .padding = kPadding}).next(1)[0];
  CHECK(b.lengths == std::vector<std::int64_t>{one.tokens(), 8, 8, 24 - 16 - one.tokens()});
  examples_of(b, one);
}

TEST_CASE("example batches: padded to the longest, in eights") {
  const ExampleSet set = made_up(10, 19);
  ExampleBatches batches(set, {.batch = 4, .window = 19, .pack = false, .padding = kPadding});
  CHECK(batches.batches_of(1) == 3);
  std::multiset<std::int64_t> rows;
  for (const MicroBatch& b : batches.next(3)) {
    std::int64_t longest = 0;
    for (const int i : examples_of(b, set)) longest = std::max(longest, set.examples[static_cast<std::size_t>(i)].length());
    CHECK(b.columns == std::min<std::int64_t>((longest + 7) / 8 * 8, 19));
    CHECK(b.lengths.empty());
    rows.insert(b.rows);
  }
  CHECK(rows == std::multiset<std::int64_t>{2, 4, 4});
}

TEST_CASE("example batches: the same go on from any position") {
  const ExampleSet set = made_up(60, 25);
  for (const bool pack : {true, false}) {
    const ExampleBatchesOptions options{.batch = 2, .window = 25, .pack = pack, .seed = 3, .padding = kPadding};
    ExampleBatches whole(set, options);
    const auto all = whole.next(70);
    CHECK(whole.position() == 70);
    CHECK(whole.epoch() > 1);
    for (const int from : {0, 1, 17, 29, 30, 31, 45, 69}) {
      ExampleBatches resumed(set, options);
      resumed.next(3);
      resumed.seek(from);
      CHECK(resumed.position() == from);
      const auto rest = resumed.next(70 - from);
      for (std::size_t i = 0; i < rest.size(); ++i) {
        REQUIRE(rest[i].ids == all[i + static_cast<std::size_t>(from)].ids);
        REQUIRE(rest[i].targets == all[i + static_cast<std::size_t>(from)].targets);
        REQUIRE(rest[i].lengths == all[i + static_cast<std::size_t>(from)].lengths);
      }
      CHECK(resumed.epoch() == whole.epoch());
      CHECK(resumed.position_in_epoch() == whole.position_in_epoch());
    }
  }
}

TEST_CASE("example batches: what cannot be batched") {
  const ExampleSet set = made_up(3, 10);
  const auto error = [](const ExampleSet& s, const ExampleBatchesOptions& options) { return error_of([&] { ExampleBatches(s, options); }); };
  CHECK(contains(error({}, {}), "no examples, at least one was expected"));
  CHECK(contains(error(set, {.window = 2}), "an example of"));
  CHECK(contains(error(set, {.batch = 0}), "at least 1 by 1 was expected"));
  ExampleSet silent = set;
  std::fill(silent.examples[1].counted.begin(), silent.examples[1].counted.end(), std::uint8_t{0});
  CHECK(contains(error(silent, {}), "none of whose tokens carries loss (line 2)"));
  CHECK(contains(error_of([&] { ExampleBatches(set, {}).seek(-1); }), "position -1, 0 or more was expected"));
}
