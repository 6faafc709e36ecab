// allocator.h - the caching allocator: size classes, huge pages for large blocks, bytes counted by category.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <mezzo/runtime.h>

namespace mezzo {

inline constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector

/// A block of at least `bytes` bytes, 64-byte aligned, contents undefined. Thread-safe; served from the cache when a block of
/// that class is free. Never null, for 0 bytes too. Throws Error when the system has no memory left.
void* allocate(std::size_t bytes, Memory category);
/// Gives a block back; `bytes` and `category` as allocated (or last re-labelled).
void deallocate(void* p, std::size_t bytes, Memory category) noexcept;
/// Moves `bytes` between accounts.
void relabel(std::size_t bytes, Memory from, Memory to) noexcept;

/// Times that the allocator has asked the system for memory: constant once a program has warmed up.
std::int64_t system_mappings();

/// The category that new tensors of this thread get; activations unless a scope says otherwise.
Memory current_memory() noexcept;
class MemoryScope {
 public:
  [[nodiscard]] explicit MemoryScope(Memory) noexcept;
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  Memory before_;
};

/// A block owned by a scope; what kernels use for workspace.
class Block {
 public:
  Block() = default;
  Block(std::size_t bytes, Memory category) : p_(allocate(bytes, category)), bytes_(bytes), category_(category) {}
  Block(Block&& o) noexcept : p_(std::exchange(o.p_, nullptr)), bytes_(o.bytes_), category_(o.category_) {}
  Block& operator=(Block&& o) noexcept {
    std::swap(p_, o.p_);
    std::swap(bytes_, o.bytes_);
    std::swap(category_, o.category_);
    return *this;
  }
  ~Block() {
    if (p_) deallocate(p_, bytes_, category_);
  }
  template <class T> T* as() const { return static_cast<T*>(p_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void* p_ = nullptr;
  std::size_t bytes_ = 0;
  Memory category_ = Memory::workspace;
};

}  // namespace mezzo
