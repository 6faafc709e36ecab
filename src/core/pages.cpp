// pages.cpp - anonymous mappings, aligned for huge pages.
#include "core/pages.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdint>

#include "core/dry_run.h"

namespace mezzo {
namespace {

constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;

// What a dry run maps is never touched: it counts for nothing in what the system has promised.
int promised() { return DryRun::active() ? MAP_NORESERVE : 0; }

/// Pages from a multiple of 2 MiB on.
char* map_aligned(std::size_t bytes, int protection) noexcept {
  void* const mapped = mmap(nullptr, bytes + kHugePage, protection, kPrivate | promised(), -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const p = static_cast<char*>(mapped);
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(p) % kHugePage, after = kHugePage - before;
  if (before) munmap(p, before);
  munmap(p + before + bytes, after);
  return p + before;
}

void wish_huge_pages(char* p, std::size_t bytes) noexcept { madvise(p, bytes, MADV_HUGEPAGE); }  // refused, the pages are small

}  // namespace

void* map_pages(std::size_t bytes) noexcept {
  if (bytes < kHugePage) {
    void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kPrivate | promised(), -1, 0);
    return p == MAP_FAILED ? nullptr : p;
  }
  char* const p = map_aligned(bytes, PROT_READ | PROT_WRITE);
  if (p) wish_huge_pages(p, bytes);
  return p;
}

void unmap_pages(void* p, std::size_t bytes) noexcept { munmap(p, bytes); }
void discard_pages(void* p, std::size_t bytes) noexcept { madvise(p, bytes, MADV_DONTNEED); }

PageRange::~PageRange() {
  if (begin_) munmap(begin_, static_cast<std::size_t>(limit_ - begin_));
}

void PageRange::reserve(std::size_t most) noexcept {
  rlimit addresses{};
  if (getrlimit(RLIMIT_AS, &addresses) != 0 || addresses.rlim_cur != RLIM_INFINITY) return;
  begin_ = end_ = map_aligned(most, PROT_NONE);
  if (begin_) limit_ = begin_ + most;
}

char* PageRange::grow(std::size_t bytes, std::size_t most) noexcept {
  if (!begin_) reserve(most);
  if (!begin_ || bytes > static_cast<std::size_t>(limit_ - end_)) return nullptr;
  if (mprotect(end_, bytes, PROT_READ | PROT_WRITE) != 0) return nullptr;
  char* const p = end_;
  wish_huge_pages(p, bytes);
  end_ += bytes;
  return p;
}

void PageRange::shrink(std::size_t bytes) noexcept {
  // A new mapping in its place: the pages are gone, and so is the claim on them.
  if (mmap(end_ - bytes, bytes, PROT_NONE, kPrivate | MAP_FIXED | promised(), -1, 0) == MAP_FAILED) discard_pages(end_ - bytes, bytes);
  end_ -= bytes;
}

}  // namespace mezzo
