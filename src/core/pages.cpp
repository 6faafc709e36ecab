// pages.cpp - anonymous mappings, aligned for huge pages.
#include "core/pages.h"

#include <sys/mman.h>

#include <cstdint>

#include "core/dry_run.h"

namespace mezzo {
namespace {

void* map(std::size_t bytes) noexcept {
  const int untouched = DryRun::active() ? MAP_NORESERVE : 0;
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | untouched, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

void* map_pages(std::size_t bytes) noexcept {
  if (bytes < kHugePage) return map(bytes);
  const std::size_t with_slack = bytes + kHugePage;
  char* const p = static_cast<char*>(map(with_slack));
  if (!p) return nullptr;
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(p) % kHugePage, after = kHugePage - before;
  if (before) munmap(p, before);
  munmap(p + before + bytes, after);
  madvise(p + before, bytes, MADV_HUGEPAGE);  // a wish: without it the pages are small
  return p + before;
}

void unmap_pages(void* p, std::size_t bytes) noexcept { munmap(p, bytes); }
void discard_pages(void* p, std::size_t bytes) noexcept { madvise(p, bytes, MADV_DONTNEED); }

}  // namespace mezzo
