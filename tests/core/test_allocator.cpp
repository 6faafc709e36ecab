// test_allocator.cpp - size classes, reuse, accounts, page faults, threads.
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "core/allocator.h"
#include "core/pages.h"
#include "core/sanitizer.h"
#include "core/size_class.h"
#include "core/spans.h"

using namespace mezzo;

namespace {

constexpr bool kSanitizer = MEZZO_ASAN || MEZZO_TSAN;  // its own memory shows in the system's counters

std::int64_t at(const MemoryReport& r, Memory m) { return r.bytes[static_cast<std::size_t>(m)]; }
std::int64_t peak_of(const MemoryReport& r, Memory m) { return r.at_peak[static_cast<std::size_t>(m)]; }

long minor_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Pages that may be written to, what RLIMIT_DATA limits.
std::size_t data_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t pages = 0;
  for (int field = 0; field < 6; ++field) statm >> pages;
  return pages * 4096;
}

// What a training step does: blocks of many sizes, freed in another order, and written to.
void step() {
  std::vector<Block> blocks;
  for (std::size_t bytes : {100u, 64u, 3000u, 70000u, 1u << 20, 900000u, 5u << 20, 1234567u, 64u, 4u << 20, 100u}) {
    blocks.emplace_back(bytes, Memory::activations);
    std::memset(blocks.back().as<char>(), 1, bytes);
    if (blocks.size() % 4 == 0) blocks.erase(blocks.begin() + 1);
  }
}

}  // namespace

TEST_CASE("size classes hold what is asked for and waste what they promise") {
  int before = -1;
  for (int i = 0; i < kSmallClasses; ++i) {
    const std::size_t bytes = class_bytes(i);
    CHECK(size_class(bytes) == SizeClass{i, bytes});
    CHECK(is_large(bytes + 1) == (i == kSmallClasses - 1));
    if (!is_large(bytes + 1)) CHECK(size_class(bytes + 1).index == i + 1);
    CHECK(bytes % 64 == 0);
    CHECK(i == before + 1);
    before = i;
  }
  CHECK(size_class(0).bytes == 64);
  std::mt19937_64 random(1);
  for (int i = 0; i < 100000; ++i) {
    const std::size_t bytes = (random() >> (random() % 18 + 46)) + 1;
    const std::size_t block = is_large(bytes) ? Spans::rounded(bytes) : size_class(bytes).bytes;
    CHECK_MESSAGE(block >= bytes, bytes);
    if (bytes > 512) CHECK_MESSAGE(block - bytes <= bytes / (is_large(bytes) ? 16 : 8), bytes);
  }
}

TEST_CASE("blocks are aligned, distinct and never null") {
  std::vector<std::pair<void*, std::size_t>> blocks;
  for (std::size_t bytes = 0; bytes < (6u << 20); bytes = bytes * 3 / 2 + 1) {
    void* p = allocate(bytes, Memory::data);
    REQUIRE(p != nullptr);
    CHECK(reinterpret_cast<std::uintptr_t>(p) % kAlignment == 0);
    std::memset(p, static_cast<int>(blocks.size()), bytes);
    blocks.emplace_back(p, bytes);
  }
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto* p = static_cast<unsigned char*>(blocks[i].first);
    for (std::size_t k = 0; k < blocks[i].second; k += 61) REQUIRE(p[k] == i % 256);
    deallocate(blocks[i].first, blocks[i].second, Memory::data);
  }
}

TEST_CASE("the small block freed last comes back first") {
  for (std::size_t bytes : {48u, 5000u, 100000u}) {
    void* a = allocate(bytes, Memory::data);
    void* b = allocate(bytes, Memory::data);
    deallocate(a, bytes, Memory::data);
    deallocate(b, bytes, Memory::data);
    CHECK(allocate(bytes, Memory::data) == b);
    CHECK(allocate(bytes, Memory::data) == a);
    deallocate(a, bytes, Memory::data);
    deallocate(b, bytes, Memory::data);
  }
}

TEST_CASE("large blocks: what others left serves any size, side by side; a step that begins alike ends alike") {
  release_cached_memory();
  const std::size_t mib = 1 << 20;
  char* const whole = static_cast<char*>(allocate(48 * mib, Memory::data));
  deallocate(whole, 48 * mib, Memory::data);
  const auto mappings = system_mappings();
  std::vector<std::pair<char*, std::size_t>> blocks;
  for (const std::size_t bytes : {5 * mib, 17 * mib + 1, 3 * mib, 200'000 * std::size_t{1}, 20 * mib})
    blocks.emplace_back(static_cast<char*>(allocate(bytes, Memory::data)), bytes);
  char* expected = whole;
  for (const auto& [p, bytes] : blocks) {
    CHECK(p == expected);
    expected += Spans::rounded(bytes + kRedZone);
  }
  // Neighbours that are free are one; the smallest that fits is taken.
  const auto free_block = [&](int i) { deallocate(blocks[i].first, blocks[i].second, Memory::data); };
  free_block(3);
  free_block(1);
  free_block(2);
  CHECK(static_cast<char*>(allocate(20 * mib + 8192, Memory::data)) == blocks[1].first);
  deallocate(blocks[1].first, 20 * mib + 8192, Memory::data);
  free_block(4);
  free_block(0);
  CHECK(allocate(48 * mib, Memory::data) == whole);
  deallocate(whole, 48 * mib, Memory::data);
  CHECK(system_mappings() == mappings);
  release_cached_memory();
  CHECK(memory_report().reserved == 0);
}

TEST_CASE("what stays and what passes lie apart: a step's memory is of one piece again when it ends") {
  release_cached_memory();
  const std::size_t mib = 1 << 20;
  std::vector<Block> state;
  for (int step = 0; step < 3; ++step) {
    const auto mappings = system_mappings();
    {
      std::vector<Block> activations;
      for (int i = 0; i < 40; ++i) activations.emplace_back(mib + 4096 * i, Memory::activations);
    }
    if (step == 0)
      for (int i = 0; i < 20; ++i) state.emplace_back(mib / 2, Memory::optimizer);  // made after the first step, where activations have just been
    const Block gradient(42 * mib, Memory::gradients);
    if (step > 0) CHECK(system_mappings() == mappings);
  }
  CHECK(memory_report().reserved == static_cast<std::int64_t>(128 * mib));  // a region of each
}

TEST_CASE("large blocks lie side by side however many there are: no border between two mappings costs the rest of one") {
  release_cached_memory();
  const std::size_t mib = 1 << 20, bytes = 40 * mib - kRedZone;
  std::vector<Block> blocks;
  for (int i = 0; i < 8; ++i) {
    blocks.emplace_back(bytes, Memory::activations);
    CHECK(blocks.back().as<char>() == blocks[0].as<char>() + i * (40 * mib));
    std::memset(blocks.back().as<char>(), 1, bytes);
  }
  CHECK(memory_report().reserved <= static_cast<std::int64_t>(8 * 40 * mib + 64 * mib));
  blocks.clear();
  const Block all(8 * 40 * mib - kRedZone, Memory::activations);
  CHECK(memory_report().reserved <= static_cast<std::int64_t>(8 * 40 * mib + 64 * mib));
}

TEST_CASE("a range of pages grows and shrinks in place; what comes again is zero") {
  constexpr std::size_t mib = 1 << 20, most = 16 * mib;
  PageRange range;
  char* const begin = range.grow(4 * mib, most);
  REQUIRE(begin);
  CHECK(reinterpret_cast<std::uintptr_t>(begin) % kHugePage == 0);
  std::memset(begin, 1, 4 * mib);
  CHECK(range.grow(8 * mib, most) == begin + 4 * mib);
  std::memset(begin + 4 * mib, 2, 8 * mib);
  CHECK(range.grow(8 * mib, most) == nullptr);  // 4 are left
  range.shrink(10 * mib);
  CHECK(range.end() == begin + 2 * mib);
  CHECK(begin[2 * mib - 1] == 1);
  const std::size_t before = data_bytes();
  CHECK(range.grow(14 * mib, most) == begin + 2 * mib);
  CHECK(data_bytes() >= before + 14 * mib);
  CHECK(begin[2 * mib] == 0);
  CHECK(begin[16 * mib - 1] == 0);

  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  if (limit.rlim_max != RLIM_INFINITY) return;
  const rlimit some{rlim_t{1} << 45, limit.rlim_max};
  REQUIRE(setrlimit(RLIMIT_AS, &some) == 0);
  PageRange other;
  CHECK(other.grow(mib * 2, most) == nullptr);  // where addresses are counted, none are kept for later
  setrlimit(RLIMIT_AS, &limit);
}

TEST_CASE("large blocks at random: none overlaps another, all room comes back, and an order of freeing changes no place") {
  Spans spans;
  std::vector<char> memory(64 << 20);
  char* const base = memory.data();
  spans.add(base, 40 << 20);
  spans.add(base + (40 << 20), 24 << 20);  // neighbours in address, but regions of their own
  const auto places = [&](unsigned seed) {
    std::mt19937 random(5);
    std::vector<std::pair<char*, std::size_t>> live;
    std::vector<char*> taken;
    for (int i = 0; i < 400; ++i) {
      const std::size_t bytes = random() % (2 << 20) + 1;
      if (char* const p = spans.take(bytes)) {
        for (const auto& [q, n] : live) REQUIRE((p + bytes <= q || q + n <= p));
        REQUIRE((p + bytes <= base + (40 << 20) || p >= base + (40 << 20)));
        live.emplace_back(p, bytes);
        taken.push_back(p);
      }
      if (live.size() > 24) {
        std::swap(live[random() % live.size()], live.back());
        spans.give_back(live.back().first);
        live.pop_back();
      }
    }
    std::shuffle(live.begin(), live.end(), std::mt19937(seed));
    for (const auto& [p, bytes] : live) spans.give_back(p);
    return taken;
  };
  const auto first = places(1);
  CHECK(places(2) == first);
  CHECK(places(3) == first);
  CHECK(spans.free_before(base + (64 << 20)) == 24 << 20);
  spans.cut(base + (64 << 20), 4 << 20);
  spans.extend(base + (60 << 20), 4 << 20);  // and is one with what is free before it
  std::vector<std::pair<char*, std::size_t>> regions;
  spans.drop_free_regions([&](char* p, std::size_t bytes) { regions.emplace_back(p, bytes); });
  CHECK(regions == std::vector<std::pair<char*, std::size_t>>{{base, 40 << 20}, {base + (40 << 20), 24 << 20}});
  CHECK(spans.take(1) == nullptr);
}

TEST_CASE("after the first steps a step asks the system for nothing and faults no page") {
  for (int i = 0; i < 3; ++i) step();
  const auto mappings = system_mappings();
  long fewest = 1;
  for (int round = 0; round < 5 && fewest > 0; ++round) {  // the process may fault elsewhere: one clean round is proof
    const long before = minor_faults();
    for (int i = 0; i < 20; ++i) step();
    fewest = std::min(fewest, minor_faults() - before);
  }
  CHECK(system_mappings() == mappings);
  if (!kSanitizer) CHECK(fewest == 0);
}

TEST_CASE("bytes are counted by category, as requested, with a snapshot at the peak") {
  const auto start = memory_report();
  reset_peak_memory();
  {
    Block weights(1000, Memory::weights);
    {
      Block activations(5000, Memory::activations);
      const auto now = memory_report();
      CHECK(at(now, Memory::weights) - at(start, Memory::weights) == 1000);
      CHECK(at(now, Memory::activations) - at(start, Memory::activations) == 5000);
      CHECK(now.total - start.total == 6000);
    }
    Block optimizer(2000, Memory::optimizer);  // below the peak
    const auto now = memory_report();
    CHECK(now.peak - start.total == 6000);
    CHECK(peak_of(now, Memory::activations) - at(start, Memory::activations) == 5000);
    CHECK(peak_of(now, Memory::optimizer) == at(start, Memory::optimizer));
    CHECK(at(now, Memory::optimizer) - at(start, Memory::optimizer) == 2000);
    std::int64_t sum = 0;
    for (auto b : now.bytes) sum += b;
    CHECK(sum == now.total);
    reset_peak_memory();
    CHECK(memory_report().peak == now.total);
  }
  CHECK(memory_report().bytes == start.bytes);

  void* p = allocate(300, Memory::gradients);
  relabel(300, Memory::gradients, Memory::masters);
  const auto moved = memory_report();
  CHECK(at(moved, Memory::masters) - at(start, Memory::masters) == 300);
  CHECK(at(moved, Memory::gradients) == at(start, Memory::gradients));
  deallocate(p, 300, Memory::masters);
  CHECK(memory_report().bytes == start.bytes);
}

TEST_CASE("the category of new tensors follows scopes") {
  CHECK(current_memory() == Memory::activations);
  {
    MemoryScope weights(Memory::weights);
    CHECK(current_memory() == Memory::weights);
    std::thread([] { CHECK(current_memory() == Memory::activations); }).join();
    MemoryScope data(Memory::data);
    CHECK(current_memory() == Memory::data);
  }
  CHECK(current_memory() == Memory::activations);
}

TEST_CASE("released memory goes back to the system; blocks in use stay") {
  release_cached_memory();
  const auto before = memory_report().reserved;
  REQUIRE(memory_report().total == 0);  // nothing of this program is in use between its tests
  CHECK(before == 0);
  void* kept = allocate(100, Memory::data);
  std::memset(kept, 7, 100);
  std::vector<Block> blocks;
  for (int i = 0; i < 3000; ++i) blocks.emplace_back(100, Memory::data);
  for (int i = 0; i < 8; ++i) blocks.emplace_back(std::size_t{8} << 20, Memory::data);
  CHECK(memory_report().reserved >= before + (64 << 20));
  const std::size_t mapped = data_bytes();
  blocks.clear();
  release_cached_memory();
  CHECK(memory_report().reserved <= before + (64 << 10));  // at most the slab that `kept` pins
  if (!kSanitizer) CHECK(data_bytes() + (64 << 20) <= mapped);
  CHECK(static_cast<unsigned char*>(kept)[99] == 7);
  for (int i = 0; i < 3000; ++i) blocks.emplace_back(100, Memory::data);  // the pinned slab's free blocks still serve, each once
  std::vector<void*> all{kept};
  for (auto& b : blocks) all.push_back(b.as<void>());
  std::sort(all.begin(), all.end());
  CHECK(std::adjacent_find(all.begin(), all.end()) == all.end());
  deallocate(kept, 100, Memory::data);
  blocks.clear();
  release_cached_memory();
  CHECK(memory_report().reserved == before);
}

TEST_CASE("no memory is an Error that names the sizes") {
  const auto before = memory_report();
  for (std::size_t bytes : {std::size_t{1} << 60, ~std::size_t{0}}) {
    try {
      allocate(bytes, Memory::gradients);
      FAIL("no error");
    } catch (const Error& e) {
      const std::string what = e.what();
      CHECK(what.find(std::to_string(bytes)) != what.npos);
      CHECK(what.find("gradients") != what.npos);
    }
  }
  CHECK(memory_report().bytes == before.bytes);
}

TEST_CASE("when the system refuses, caches are given up first" * doctest::skip(kSanitizer)) {
  release_cached_memory();
  const std::size_t mib = std::size_t{1} << 20;
  deallocate(allocate(256 * mib, Memory::data), 256 * mib, Memory::data);  // cached
  rlimit limit{};
  getrlimit(RLIMIT_DATA, &limit);
  const rlimit tight{data_bytes() + 128 * mib, limit.rlim_max};
  REQUIRE(setrlimit(RLIMIT_DATA, &tight) == 0);
  CHECK_THROWS_AS(allocate(800 * mib, Memory::data), Error);  // not even without caches
  void* p = allocate(300 * mib, Memory::data);
  setrlimit(RLIMIT_DATA, &limit);
  CHECK(p != nullptr);
  deallocate(p, 300 * mib, Memory::data);
  release_cached_memory();
}

#if MEZZO_ASAN
TEST_CASE("the address sanitizer sees freed blocks and what lies behind a block") {
  for (std::size_t bytes : {64u, 1000u, 3u << 20}) {
    auto* p = static_cast<char*>(allocate(bytes, Memory::data));
    CHECK(__asan_region_is_poisoned(p, bytes) == nullptr);
    CHECK(__asan_address_is_poisoned(p + bytes));
    deallocate(p, bytes, Memory::data);
    CHECK(__asan_address_is_poisoned(p));
    CHECK(__asan_address_is_poisoned(p + bytes - 1));
  }
}
#endif

TEST_CASE("threads share the allocator: blocks never overlap, also when freed by another thread") {
  const auto before = memory_report();
  std::array<std::vector<Block>, 4> passed_on;
  const auto work = [&](unsigned id, bool check) {
    std::mt19937 random(id);
    std::vector<Block> blocks;
    for (int i = 0; i < 3000; ++i) {
      const std::size_t bytes = random() % 20 == 0 ? random() % (3 << 20) + 8 : random() % 2000 + 8;
      blocks.emplace_back(bytes, Memory::data);
      std::memset(blocks.back().as<char>(), static_cast<int>(id), 8);
      blocks.back().as<char>()[bytes - 1] = static_cast<char>(id);
      if (blocks.size() > 30) {
        const std::size_t victim = random() % blocks.size();
        if (check &&
            (blocks[victim].as<char>()[0] != static_cast<char>(id) || blocks[victim].as<char>()[blocks[victim].bytes() - 1] != static_cast<char>(id)))
          throw std::logic_error("a block was written by another thread");
        std::swap(blocks[victim], blocks.back());
        blocks.pop_back();
      }
    }
    passed_on[id] = std::move(blocks);
  };
  for (int round = 0; round < 2; ++round) {
    std::vector<std::thread> threads;
    for (unsigned id = 0; id < 4; ++id)
      threads.emplace_back([&, id] {
        passed_on[id].clear();
        work(id, true);
      });
    for (auto& t : threads) t.join();
    std::rotate(passed_on.begin(), passed_on.begin() + 1, passed_on.end());
  }
  for (auto& blocks : passed_on) blocks.clear();
  CHECK(memory_report().bytes == before.bytes);
}
