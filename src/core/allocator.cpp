// allocator.cpp - one lock, a stack of free blocks for each size class, spans for large ones, and the accounts.
//
// Small blocks are carved from slabs, one after another and only when no used block is free, so the stacks hold touched memory
// only: a sequence that has run once runs again without a page fault. Large blocks are spans (core/spans.h), those that stay for a run apart from
// those that come and go with each step, which are all of one piece again when it ends.
#include "core/allocator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "core/dry_run.h"
#include "core/fail.h"
#include "core/machine.h"
#include "core/pages.h"
#include "core/size_class.h"
#include "core/spans.h"

namespace mezzo {
namespace {

struct Slab {
  char* begin;
  std::size_t bytes;
};

struct Class {
  std::vector<void*> free;  // a stack; its capacity is at least the number of blocks in existence, so push_back never allocates
  std::size_t blocks = 0;   // in existence
  std::size_t block_bytes = 0;
  std::vector<Slab> slabs;
  char *fresh = nullptr, *fresh_end = nullptr;  // the uncarved end of the last slab
};

constexpr std::size_t kRegion = std::size_t{64} << 20;  // got at once for large blocks; what nobody has touched takes no memory
constexpr std::int64_t kMostAddresses = std::int64_t{1} << 40;

/// Large blocks of one kind. They lie in one range of addresses, so that a step's memory is of one piece however large it grows; where no range is to
/// be had, in regions here and there.
struct Large {
  PageRange range;
  Spans spans;
};

constexpr std::size_t multiple_of(std::size_t step, std::size_t bytes) { return (bytes + step - 1) / step * step; }
constexpr std::size_t slab_bytes(std::size_t block) { return std::clamp(std::bit_ceil(8 * block), std::size_t{64} << 10, std::size_t{4} << 20); }

class Allocator {
 public:
  /// `memory`: bytes it may use.
  explicit Allocator(std::int64_t memory) : memory_(memory) {
    for (std::size_t i = 0; i < classes_.size(); ++i) classes_[i].block_bytes = class_bytes(static_cast<int>(i));
  }

  void* allocate(std::size_t bytes, Memory category) {
    if (bytes > kMaxBlock - kRedZone) refuse(bytes, category);
    const std::size_t size = bytes + kRedZone;
    const std::lock_guard lock(mutex_);
    void* const p = is_large(size) ? large_block(size, lasts(category) ? lasting_ : passing_) : small_block(classes_[size_class(size).index]);
    if (!p) refuse(bytes, category);
    allow(p, bytes);
    count(bytes, category);
    return p;
  }

  void deallocate(void* p, std::size_t bytes, Memory category) noexcept {
    const std::size_t size = bytes + kRedZone;
    const std::lock_guard lock(mutex_);
    if (is_large(size)) {
      forbid(p, Spans::rounded(size));
      char* const block = static_cast<char*>(p);
      (lasting_.spans.holds(block) ? lasting_ : passing_).spans.give_back(block);
    } else {
      Class& k = classes_[size_class(size).index];
      forbid(p, k.block_bytes);
      k.free.push_back(p);
    }
    accounts_.bytes[static_cast<std::size_t>(category)] -= static_cast<std::int64_t>(bytes);
    accounts_.total -= static_cast<std::int64_t>(bytes);
  }

  void relabel(std::size_t bytes, Memory from, Memory to) noexcept {
    const std::lock_guard lock(mutex_);
    accounts_.bytes[static_cast<std::size_t>(from)] -= static_cast<std::int64_t>(bytes);
    accounts_.bytes[static_cast<std::size_t>(to)] += static_cast<std::int64_t>(bytes);
  }

  MemoryReport report() {
    const std::lock_guard lock(mutex_);
    return accounts_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    mark_peak();
  }

  void release() {
    const std::lock_guard lock(mutex_);
    release_cached();
  }

  std::int64_t mappings() {
    const std::lock_guard lock(mutex_);
    return mappings_;
  }

  std::int64_t asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void count(std::size_t bytes, Memory category) noexcept {
    asked_ += static_cast<std::int64_t>(bytes);
    accounts_.bytes[static_cast<std::size_t>(category)] += static_cast<std::int64_t>(bytes);
    accounts_.total += static_cast<std::int64_t>(bytes);
    if (accounts_.total > accounts_.peak) mark_peak();
  }

  void mark_peak() noexcept {
    accounts_.at_peak = accounts_.bytes;
    accounts_.peak = accounts_.total;
  }

  static void* pop(Class& k) noexcept {
    if (k.free.empty()) return nullptr;
    void* const p = k.free.back();
    k.free.pop_back();
    return p;
  }

  void* small_block(Class& k) {
    if (void* const p = pop(k)) return p;
    if (k.fresh == k.fresh_end) {
      const std::size_t bytes = slab_bytes(k.block_bytes), blocks = bytes / k.block_bytes;
      k.slabs.reserve(k.slabs.size() + 1);
      reserve(k, k.blocks + blocks);
      char* const slab = static_cast<char*>(map(bytes));
      if (!slab) return nullptr;
      k.slabs.push_back({slab, bytes});
      k.blocks += blocks;
      k.fresh = slab;
      k.fresh_end = slab + blocks * k.block_bytes;
    }
    return std::exchange(k.fresh, k.fresh + k.block_bytes);
  }

  static bool lasts(Memory c) { return c != Memory::activations && c != Memory::gradients && c != Memory::workspace; }

  void* large_block(std::size_t bytes, Large& large) {
    if (char* const p = large.spans.take(bytes)) return p;
    bytes = Spans::rounded(bytes);
    // Unused memory must not be what drives the machine into swapping.
    if (accounts_.reserved + static_cast<std::int64_t>(std::max(bytes, kRegion)) > memory_ / 8 * 7) release_cached();
    if (!grow(large, bytes)) {
      release_cached();
      if (!grow(large, bytes) && !add_region(large.spans, std::max(bytes, kRegion))) return nullptr;
    }
    return large.spans.take(bytes);
  }

  /// Room for a block of `bytes` at the end of the range.
  bool grow(Large& large, std::size_t bytes) {
    const std::size_t wanted = bytes - std::min(bytes, large.spans.free_before(large.range.end()));
    const std::size_t more = std::max(multiple_of(kHugePage, wanted), kRegion);
    char* const p = large.range.grow(more, multiple_of(kHugePage, static_cast<std::size_t>(std::min(memory_, kMostAddresses))));
    if (!p) return false;
    took(p, more);
    try {
      p == large.range.begin() ? large.spans.add(p, more) : large.spans.extend(p, more);
    } catch (...) {
      shrink(large, more);
      throw;
    }
    return true;
  }

  void shrink(Large& large, std::size_t bytes) noexcept {
    allow(large.range.end() - bytes, bytes);
    large.range.shrink(bytes);
    accounts_.reserved -= static_cast<std::int64_t>(bytes);
  }

  bool add_region(Spans& spans, std::size_t bytes) {
    char* const p = static_cast<char*>(map(bytes));
    if (!p) return false;
    try {
      spans.add(p, bytes);
    } catch (...) {
      unmap(p, bytes);
      throw;
    }
    return true;
  }

  // Grows in doublings, as push_back would.
  static void reserve(Class& k, std::size_t blocks) {
    if (blocks > k.free.capacity()) k.free.reserve(std::max(blocks, 2 * k.free.capacity()));
  }

  void* map(std::size_t bytes) noexcept {
    void* p = map_pages(bytes);
    if (!p) {
      release_cached();
      p = map_pages(bytes);
      if (!p) return nullptr;
    }
    took(p, bytes);
    return p;
  }

  void took(void* p, std::size_t bytes) noexcept {
    forbid(p, bytes);
    accounts_.reserved += static_cast<std::int64_t>(bytes);
    ++mappings_;
  }

  void unmap(void* p, std::size_t bytes) noexcept {
    allow(p, bytes);
    unmap_pages(p, bytes);
    accounts_.reserved -= static_cast<std::int64_t>(bytes);
  }

  void release_cached() noexcept {
    for (Large* large : {&lasting_, &passing_}) {
      Spans& spans = large->spans;
      if (const std::size_t unused = spans.free_before(large->range.end()) / kHugePage * kHugePage) {
        spans.cut(large->range.end(), unused);
        shrink(*large, unused);
      }
      spans.drop_free_regions([this](char* p, std::size_t bytes) { unmap(p, bytes); });
      spans.each_free([](char* p, std::size_t bytes) { discard_pages(p, bytes); });
    }
    for (int i = 0; i < kSmallClasses; ++i) release_slabs(classes_[i]);
  }

  // Gives back the slabs none of whose blocks is in use.
  void release_slabs(Class& k) noexcept {
    std::sort(k.slabs.begin(), k.slabs.end(), [](const Slab& a, const Slab& b) { return a.begin < b.begin; });
    // The stack in order of address; which free block comes next is of no consequence to anyone but the cache.
    std::sort(k.free.begin(), k.free.end());
    std::size_t kept_slabs = 0, kept_blocks = 0;
    auto block = k.free.begin();
    for (const Slab& slab : k.slabs) {
      const auto first = block;
      while (block != k.free.end() && static_cast<char*>(*block) < slab.begin + slab.bytes) ++block;
      const std::size_t free_blocks = static_cast<std::size_t>(block - first);
      const bool current = slab.begin < k.fresh_end && k.fresh_end <= slab.begin + slab.bytes;
      const std::size_t uncarved = current ? static_cast<std::size_t>(k.fresh_end - k.fresh) / k.block_bytes : 0;
      if (free_blocks + uncarved == slab.bytes / k.block_bytes) {
        unmap(slab.begin, slab.bytes);
        k.blocks -= slab.bytes / k.block_bytes;
        if (current) k.fresh = k.fresh_end = nullptr;
      } else {
        k.slabs[kept_slabs++] = slab;
        kept_blocks = static_cast<std::size_t>(std::move(first, block, k.free.begin() + static_cast<std::ptrdiff_t>(kept_blocks)) - k.free.begin());
      }
    }
    k.slabs.resize(kept_slabs);
    k.free.resize(kept_blocks);
  }

  [[noreturn]] void refuse(std::size_t bytes, Memory category) const {
    if (DryRun::active())
      fail("allocate", fmt::format("more than {} bytes would be needed, more than any machine has addresses for",
                                   accounts_.total + static_cast<std::int64_t>(std::min(bytes, kMaxBlock))));
    fail(
        "allocate",
        fmt::format(
            "{} bytes of {} were asked for and the system has no memory left: {} bytes are in use by mezzo ({} at the peak), this process may use {}",
            bytes, name(category), accounts_.total, accounts_.peak, memory_),
        "a smaller batch or a shorter sequence needs less; so does a 16-bit precision");
  }

  std::mutex mutex_;
  std::array<Class, kSmallClasses> classes_;
  Large lasting_, passing_;
  MemoryReport accounts_;
  std::int64_t mappings_ = 0, asked_ = 0;
  const std::int64_t memory_;
};

thread_local Allocator* tl_dry = nullptr;  // of this thread's dry run

Allocator& the_allocator() {
  static Allocator& allocator = *new Allocator(usable_memory());  // never destroyed: static tensors outlive every order of destruction
  return tl_dry ? *tl_dry : allocator;
}

thread_local Memory tl_memory = Memory::activations;

constexpr std::array<std::string_view, kMemoryCategories> kMemoryNames = {"weights",     "masters",    "gradients", "optimizer",
                                                                          "activations", "cast_cache", "workspace", "data"};

}  // namespace

void* allocate(std::size_t bytes, Memory category) { return the_allocator().allocate(bytes, category); }
void deallocate(void* p, std::size_t bytes, Memory category) noexcept { the_allocator().deallocate(p, bytes, category); }
void relabel(std::size_t bytes, Memory from, Memory to) noexcept { the_allocator().relabel(bytes, from, to); }
std::int64_t system_mappings() { return the_allocator().mappings(); }

struct DryRun::Impl {
  Allocator allocator{std::numeric_limits<std::int64_t>::max()};  // what nobody touches takes none
};
DryRun::DryRun() : impl_(std::make_unique<Impl>()) {
  MEZZO_CHECK(!tl_dry);
  tl_dry = &impl_->allocator;
}
DryRun::~DryRun() {
  impl_->allocator.release();
  tl_dry = nullptr;
}
bool DryRun::active() noexcept { return tl_dry; }
std::int64_t DryRun::allocated() const { return impl_->allocator.asked(); }

Memory current_memory() noexcept { return tl_memory; }
MemoryScope::MemoryScope(Memory category) noexcept : before_(std::exchange(tl_memory, category)) {}
MemoryScope::~MemoryScope() { tl_memory = before_; }

std::string_view name(Memory category) { return kMemoryNames[static_cast<std::size_t>(category)]; }
MemoryReport memory_report() { return the_allocator().report(); }
void reset_peak_memory() { the_allocator().reset_peak(); }
void release_cached_memory() { the_allocator().release(); }

}  // namespace mezzo
