// bpe.cpp - the merge table, and merging by a heap of pairs over a linked list of symbols.
#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/fail.h"

namespace mezzo::text {

void MergeTable::reserve(std::size_t merges) {
  const std::size_t wanted = std::bit_ceil(std::max<std::size_t>(2 * merges, 16));
  if (wanted <= slots_.size()) return;
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(wanted));
  shift_ = 64 - std::countr_zero(wanted);
  size_ = 0;
  for (const Slot& s : old)
    if (s.left >= 0) add(s.left, s.right, s.merge);
}

void MergeTable::add(std::int32_t left, std::int32_t right, Merge merge) {
  MEZZO_CHECK(left >= 0 && right >= 0);
  reserve(size_ + 1);
  std::size_t i = place(left, right);
  for (; slots_[i].left >= 0; i = (i + 1) & (slots_.size() - 1))
    if (slots_[i].left == left && slots_[i].right == right) return;
  slots_[i] = {left, right, merge};
  ++size_;
}

namespace {
// Of a min-heap on (rank, place).
constexpr auto kLater = [](const auto& a, const auto& b) { return a.rank != b.rank ? a.rank > b.rank : a.at > b.at; };
}  // namespace

void Merger::consider(const MergeTable& table, std::int32_t at) {
  const Symbol& s = symbols_[static_cast<std::size_t>(at)];
  if (s.next < 0) return;
  const std::int32_t right = symbols_[static_cast<std::size_t>(s.next)].id;
  if (const auto* m = table.find(s.id, right)) {
    heap_.push_back({m->rank, at, s.id, right, m->result});
    std::push_heap(heap_.begin(), heap_.end(), kLater);
  }
}

void Merger::merge(const MergeTable& table, std::vector<std::int32_t>& ids) {
  const auto n = static_cast<std::int32_t>(ids.size());
  if (n < 2) return;
  symbols_.clear();
  for (std::int32_t i = 0; i < n; ++i) symbols_.push_back({ids[static_cast<std::size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1});
  heap_.clear();
  for (std::int32_t i = 0; i + 1 < n; ++i) consider(table, i);
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), kLater);
    const Candidate c = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[static_cast<std::size_t>(c.at)];
    if (left.id != c.left || left.next < 0) continue;  // one of the two has changed since
    Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
    if (right.id != c.right) continue;
    left.id = c.result;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols_[static_cast<std::size_t>(left.next)].previous = c.at;
    if (left.previous >= 0) consider(table, left.previous);
    consider(table, c.at);
  }
  ids.clear();
  for (std::int32_t i = 0; i >= 0; i = symbols_[static_cast<std::size_t>(i)].next) ids.push_back(symbols_[static_cast<std::size_t>(i)].id);
}

}  // namespace mezzo::text
