// batches_test.cpp - the order is a permutation, resumes where it was, and looks random; evaluation sees every window once.
#include "text/batches.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "io/support.h"
#include "text/permutation.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::text;

namespace {

/// n tokens that are all different: a window is known by its first.
struct Counting {
  explicit Counting(std::size_t n) : ids(n) {
    std::iota(ids.begin(), ids.end(), 0);
    stream.append(std::span<const std::int32_t>(ids));
  }
  std::vector<std::int32_t> ids;
  TokenStream stream;
};

struct Pair {
  explicit Pair(std::int64_t n) : x(static_cast<std::size_t>(n)), y(static_cast<std::size_t>(n)) {}
  std::vector<std::int32_t> x, y;
};

}  // namespace

TEST_CASE("permutation: a bijection for every size, and other orders for other seeds and epochs") {
  for (const std::uint64_t n : {1, 2, 3, 7, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1000, 4096, 4097, 10000}) {
    std::vector<bool> seen(n);
    const Permutation p(n, 42, 3);
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto j = p(i);
      REQUIRE(j < n);
      REQUIRE_FALSE(seen[j]);
      seen[j] = true;
    }
  }
  std::set<std::vector<std::uint64_t>> orders;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (std::uint64_t epoch = 0; epoch < 10; ++epoch) {
      std::vector<std::uint64_t> order;
      const Permutation p(20, seed, epoch);
      for (std::uint64_t i = 0; i < 20; ++i) order.push_back(p(i));
      orders.insert(order);
    }
  CHECK(orders.size() == 100);
  const Permutation huge(std::uint64_t{1} << 40, 1, 0);
  CHECK(huge(5) < std::uint64_t{1} << 40);
  CHECK(huge(5) != huge(6));
}

TEST_CASE("permutation: where an element goes is uniform over epochs, and neighbours part") {
  constexpr int kSize = 10, kEpochs = 20000;
  std::vector<int> place(kSize * kSize);
  for (int epoch = 0; epoch < kEpochs; ++epoch) {
    const Permutation p(kSize, 7, static_cast<std::uint64_t>(epoch));
    for (int i = 0; i < kSize; ++i) ++place[static_cast<std::size_t>(i) * kSize + p(static_cast<std::uint64_t>(i))];
  }
  // Counts are binomial(20000, 1/10): 2000, standard deviation 42.4. Chi-squared over 100 cells with 81 degrees of freedom: mean 81, sd 12.7.
  double chi = 0;
  for (const int count : place) chi += (count - 2000.0) * (count - 2000.0) / 2000.0;
  CHECK(chi < 81 + 6 * 12.7);
  CHECK(chi > 81 - 6 * 12.7);

  // Of 10,000 neighbours about 2 stay neighbours (Poisson, mean 2): a stream in order would have all.
  const Permutation p(10000, 3, 0);
  int neighbours = 0;
  for (std::uint64_t i = 0; i + 1 < 10000; ++i) neighbours += p(i) + 1 == p(i + 1) || p(i) == p(i + 1) + 1;
  CHECK(neighbours < 12);
}

TEST_CASE("batches: an epoch takes each window once; targets are the next tokens") {
  const std::int64_t T = 5, B = 4;
  const Counting data(5 * 12 + 3);  // 12 windows and a tail
  Batches batches(data.stream, {.batch = B, .seq = T, .seed = 1});
  REQUIRE(batches.windows() == 12);
  Pair batch(B * T);
  std::vector<std::int32_t> first_epoch, second_epoch;
  for (auto* epoch : {&first_epoch, &second_epoch}) {
    std::set<std::int32_t> windows;
    for (int step = 0; step < 3; ++step) {
      batches.next(batch.x, batch.y);
      for (std::int64_t row = 0; row < B; ++row) {
        const auto start = batch.x[static_cast<std::size_t>(row * T)];
        CHECK(start % T == 0);
        for (std::int64_t t = 0; t < T; ++t) {
          CHECK(batch.x[static_cast<std::size_t>(row * T + t)] == start + t);
          CHECK(batch.y[static_cast<std::size_t>(row * T + t)] == start + t + 1);
        }
        windows.insert(start);
        epoch->push_back(start);
      }
    }
    CHECK(windows.size() == 12);
  }
  CHECK(first_epoch != second_epoch);
  CHECK(batches.position() == 24);
}

TEST_CASE("batches: one integer resumes anywhere, across epochs and with batches larger than an epoch") {
  for (const std::int64_t B : {1, 3, 25}) {
    const Counting data(4 * 10 + 1);
    const BatchesOptions options{.batch = B, .seq = 4, .seed = 9};
    Batches straight(data.stream, options);
    Pair a(B * 4), b(B * 4);
    for (int step = 0; step < 30; ++step) {
      Batches resumed(data.stream, options);
      resumed.seek(straight.position());
      straight.next(a.x, a.y);
      resumed.next(b.x, b.y);
      REQUIRE(a.x == b.x);
      REQUIRE(a.y == b.y);
      REQUIRE(resumed.position() == straight.position());
    }
  }
  // The batch size cuts the same order into other pieces.
  const Counting data(400);
  Batches by_two(data.stream, {.batch = 2, .seq = 3, .seed = 5}), by_six(data.stream, {.batch = 6, .seq = 3, .seed = 5});
  Pair two(6), six(18);
  std::vector<std::int32_t> joined;
  for (int i = 0; i < 3; ++i) {
    by_two.next(two.x, two.y);
    joined.insert(joined.end(), two.x.begin(), two.x.end());
  }
  by_six.next(six.x, six.y);
  CHECK(joined == six.x);
}

TEST_CASE("batches: seeds differ, and so does the same seed from nothing else") {
  const Counting data(3001);
  const auto first = [&](std::uint64_t seed) {
    Batches batches(data.stream, {.batch = 8, .seq = 10, .seed = seed});
    Pair p(80);
    batches.next(p.x, p.y);
    return p.x;
  };
  CHECK(first(1) == first(1));
  CHECK(first(1) != first(2));
}

TEST_CASE("batches: no window of training touches validation") {
  const TempDir dir;
  // Every byte says which part it is in: two files, the last quarter of each in capitals.
  spit(dir / "a", std::string(750, 'a') + std::string(250, 'A'));
  spit(dir / "b", std::string(300, 'b') + std::string(100, 'B'));
  const ByteTokenizer tokenizer;
  const Corpus corpus(dir.path(), tokenizer, {.seq = 16, .val_fraction = 0.25});
  Batches batches(corpus.train(), {.batch = 1, .seq = 16, .seed = 0});
  Pair p(16);
  for (std::int64_t w = 0; w < batches.windows(); ++w) {
    batches.next(p.x, p.y);
    for (const auto* tokens : {&p.x, &p.y})
      for (const auto t : *tokens) REQUIRE(t >= 'a');
  }
  EvalBatches eval(corpus.validation(), {.batch = 1, .seq = 16});
  std::int64_t windows = 0;
  while (eval.next(p.x, p.y) > 0) {
    ++windows;
    for (const auto* tokens : {&p.x, &p.y})
      for (const auto t : *tokens) REQUIRE(t < 'a');
  }
  CHECK(windows == (350 - 1) / 16);
}

TEST_CASE("evaluation: every window in order, the last batch filled with ignored rows") {
  const std::int64_t T = 3, B = 4;
  const Counting data(3 * 10 + 1);
  EvalBatches eval(data.stream, {.batch = B, .seq = T});
  REQUIRE(eval.windows() == 10);
  Pair p(B * T);
  std::int32_t next = 0;
  for (const std::int64_t rows : {4, 4, 2}) {
    REQUIRE(eval.next(p.x, p.y) == rows);
    for (std::int64_t i = 0; i < B * T; ++i) {
      const bool there = i < rows * T;
      CHECK(p.x[static_cast<std::size_t>(i)] == (there ? next : 0));
      CHECK(p.y[static_cast<std::size_t>(i)] == (there ? next + 1 : -100));
      if (there) ++next;
    }
  }
  CHECK(next == 30);
  CHECK(eval.next(p.x, p.y) == 0);
  CHECK(eval.next(p.x, p.y) == 0);
}

TEST_CASE("evaluation with a stride: every target once, with what a window had before it; and a token before each window") {
  const std::int64_t T = 5;
  const Counting data(5 + 3 * 2 + 2);  // windows at 0, 2, 4, 6; one token is left over
  EvalBatches eval(data.stream, {.batch = 1, .seq = T, .stride = 2, .begin = 77});
  REQUIRE(eval.windows() == 4);
  REQUIRE(eval.columns() == T + 1);
  Pair p(T + 1);
  std::vector<std::int32_t> counted;
  for (std::int32_t w = 0; w < 4; ++w) {
    REQUIRE(eval.next(p.x, p.y) == 1);
    CHECK(p.x[0] == 77);
    CHECK(p.y[0] == -100);
    for (std::int32_t i = 1; i <= T; ++i) {
      CHECK(p.x[static_cast<std::size_t>(i)] == 2 * w + i - 1);
      const auto y = p.y[static_cast<std::size_t>(i)];
      if (y == -100) continue;
      CHECK(y == 2 * w + i);
      counted.push_back(y);
    }
  }
  CHECK(eval.next(p.x, p.y) == 0);
  std::vector<std::int32_t> all(11);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i + 1);
  CHECK(counted == all);
  CHECK(contains(error_of([&] { EvalBatches(data.stream, {.batch = 1, .seq = 5, .stride = 6}); }), "a stride of 6"));
}

TEST_CASE("batches: misuse is refused") {
  const Counting data(10);
  CHECK(contains(error_of([&] { Batches(data.stream, {.batch = 1, .seq = 10}); }), "10 tokens, at least 11"));
  CHECK(contains(error_of([&] { EvalBatches(data.stream, {.batch = 0, .seq = 2}); }), "at least 1 by 1"));
  CHECK(window_count(10, 9) == 1);
  CHECK(window_count(10, 10) == 0);
  CHECK(window_count(0, 4) == 0);
  Batches batches(data.stream, {.batch = 2, .seq = 4});
  CHECK(contains(error_of([&] { batches.seek(-1); }), "position -1"));
  Pair small(7);
  CHECK_THROWS_AS(batches.next(small.x, small.y), std::logic_error);
}
