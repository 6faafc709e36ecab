// test_parallel.cpp - the partition, who runs what, nesting, contention, exceptions.
#include <atomic>
#include <future>
#include <limits>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <mezzo/runtime.h>

#include "core/parallel.h"

using namespace mezzo;

namespace {

struct Threads {
  explicit Threads(int n) : before(num_threads()) { set_num_threads(n); }
  ~Threads() { set_num_threads(before); }
  int before;
};

using Ranges = std::set<std::pair<std::int64_t, std::int64_t>>;

Ranges ranges_of(std::int64_t n, std::int64_t grain, std::int64_t align = 1) {
  std::mutex mutex;
  Ranges ranges;
  parallel_for(
      n, grain,
      [&](std::int64_t begin, std::int64_t end) {
        const std::lock_guard lock(mutex);
        CHECK(ranges.emplace(begin, end).second);
      },
      align);
  return ranges;
}

}  // namespace

TEST_CASE("partition_count: never a part below the grain, never more parts than threads") {
  Threads four(4);
  CHECK(partition_count(0, 1) == 0);
  CHECK(partition_count(-5, 1) == 0);
  CHECK(partition_count(1, 1) == 1);
  CHECK(partition_count(100, 100) == 1);
  CHECK(partition_count(199, 100) == 1);
  CHECK(partition_count(200, 100) == 2);
  CHECK(partition_count(1000000, 100) == 4);
  CHECK(partition_count(3, 0) == 3);
  CHECK(partition_count(std::numeric_limits<std::int64_t>::max(), 1) == 4);
}

TEST_CASE("the ranges of parallel_for tile [0, n), nearly equal and aligned") {
  for (int threads : {1, 2, 3, 7}) {
    Threads scope(threads);
    for (std::int64_t n : {0, 1, 5, 16, 17, 100, 1000, 4096, 4099})
      for (std::int64_t grain : {1, 8, 600})
        for (std::int64_t align : {1, 16, 64}) {
          const Ranges ranges = ranges_of(n, grain, align);
          CHECK(static_cast<int>(ranges.size()) <= partition_count(n, grain));
          std::int64_t at = 0, shortest = n, longest = 0;
          for (const auto& [begin, end] : ranges) {
            CHECK(begin == at);
            CHECK(begin % align == 0);
            CHECK(end > begin);
            at = end;
            if (end != n) shortest = std::min(shortest, end - begin);
            longest = std::max(longest, end - begin);
          }
          CHECK(at == n);
          if (ranges.size() > 1) CHECK(longest - shortest <= align);
        }
  }
}

TEST_CASE("every part runs once, part p on worker p mod threads") {
  Threads three(3);
  constexpr int kParts = 20;
  std::vector<std::thread::id> who(kParts);
  std::vector<std::atomic<int>> runs(kParts);
  parallel_parts(kParts, [&](int part) {
    ++runs[static_cast<std::size_t>(part)];
    who[static_cast<std::size_t>(part)] = std::this_thread::get_id();
  });
  for (std::size_t p = 0; p < kParts; ++p) {
    CHECK(runs[p] == 1);
    CHECK(who[p] == who[p % 3]);
  }
  CHECK(std::set(who.begin(), who.end()).size() == 3);
  CHECK(who[0] == std::this_thread::get_id());
}

TEST_CASE("nested calls run serially on their thread, with the parts they would have had") {
  Threads two(2);
  const Ranges alone = ranges_of(1000, 10);
  std::vector<Ranges> nested(2);
  parallel_parts(2, [&](int part) {
    const auto outer = std::this_thread::get_id();
    parallel_for(1000, 10, [&](std::int64_t begin, std::int64_t end) {
      CHECK(std::this_thread::get_id() == outer);
      nested[static_cast<std::size_t>(part)].emplace(begin, end);
    });
  });
  CHECK(alone.size() == 2);
  CHECK(nested[0] == alone);
  CHECK(nested[1] == alone);
}

TEST_CASE("one part stays on the caller's thread and may itself use the pool") {
  Threads two(2);
  std::set<std::thread::id> who;
  std::mutex mutex;
  parallel_parts(1, [&](int) {
    parallel_parts(2, [&](int) {
      const std::lock_guard lock(mutex);
      who.insert(std::this_thread::get_id());
    });
  });
  CHECK(who.size() == 2);
}

TEST_CASE("while another thread uses the pool a call runs serially, with the same parts") {
  Threads two(2);
  const Ranges alone = ranges_of(1000, 10);
  std::promise<void> inside, finish;
  std::atomic<bool> told{false};
  auto wait = finish.get_future().share();
  std::thread other([&] {
    parallel_parts(2, [&](int) {
      if (!told.exchange(true)) inside.set_value();
      wait.wait();
    });
  });
  inside.get_future().wait();
  Ranges busy;
  const auto me = std::this_thread::get_id();
  parallel_for(1000, 10, [&](std::int64_t begin, std::int64_t end) {
    CHECK(std::this_thread::get_id() == me);
    busy.emplace(begin, end);
  });
  finish.set_value();
  other.join();
  CHECK(busy == alone);
}

TEST_CASE("the exception of the first part is rethrown, and the pool works on") {
  for (int threads : {1, 2, 4}) {
    Threads scope(threads);
    for (int round = 0; round < 50; ++round) {
      try {
        parallel_parts(12, [&](int part) {
          if (part == 3 || part == 6 || part == 9) throw std::runtime_error(std::to_string(part));
        });
        FAIL("no exception");
      } catch (const std::runtime_error& e) { CHECK(std::string(e.what()) == "3"); }
    }
    std::atomic<int> sum{0};
    parallel_parts(12, [&](int part) { sum += part; });
    CHECK(sum == 66);
  }
}

TEST_CASE("many small regions, from several threads") {
  Threads three(3);
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> sum{0};
  for (int t = 0; t < 3; ++t)
    callers.emplace_back([&] {
      for (int i = 0; i < 300; ++i) parallel_for(9, 1, [&](std::int64_t begin, std::int64_t end) { sum += end - begin; });
    });
  for (auto& c : callers) c.join();
  CHECK(sum == 3 * 300 * 9);
}

TEST_CASE("the number of threads can change, within limits") {
  for (int n : {5, 1, 3}) {
    Threads scope(n);
    CHECK(num_threads() == n);
    CHECK(ranges_of(100, 1).size() == static_cast<std::size_t>(n));
  }
  CHECK_THROWS_AS(set_num_threads(0), Error);
  CHECK_THROWS_AS(set_num_threads(-1), Error);
  CHECK_THROWS_AS(set_num_threads(1000000), Error);
}
