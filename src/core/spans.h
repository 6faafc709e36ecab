// spans.h - large blocks: spans of mapped regions, split and joined, so that what one use of memory leaves behind serves another of any size.
#pragma once

#include <cstddef>
#include <iterator>
#include <map>
#include <set>
#include <utility>

namespace mezzo {

/// Free neighbours are joined at once and the smallest span that fits is taken, at the lowest address: where blocks go depends on which are in use
/// and on nothing else, so a training step that begins as the one before it began puts everything where that did.
class Spans {
 public:
  static constexpr std::size_t kStep = std::size_t{4} << 10;  // sizes are multiples of it
  static constexpr std::size_t rounded(std::size_t bytes) { return (bytes + kStep - 1) / kStep * kStep; }

  /// A new region, all of it free.
  void add(char* begin, std::size_t bytes) {
    auto node = made(bytes, begin);
    spans_.emplace(begin, Span{bytes, true, {}});
    free_.insert(std::move(node));
  }

  /// More free memory just behind a region, of which it becomes a part.
  void extend(char* begin, std::size_t bytes) {
    const auto last = std::prev(spans_.lower_bound(begin));
    if (last->second.node.empty()) {
      auto node = free_.extract({last->second.bytes, last->first});
      last->second.bytes += bytes;
      node.value().first = last->second.bytes;
      free_.insert(std::move(node));
    } else {
      auto node = made(bytes, begin);
      spans_.emplace(begin, Span{bytes, false, {}});
      free_.insert(std::move(node));
    }
  }

  /// How many bytes just before `end`, where a region ends, are free.
  std::size_t free_before(char* end) const {
    const auto next = spans_.lower_bound(end);
    if (next == spans_.begin()) return 0;
    const auto& [begin, span] = *std::prev(next);
    return span.node.empty() && begin + span.bytes == end ? span.bytes : 0;
  }

  /// Forgets the last `bytes` before `end`, which are free.
  void cut(char* end, std::size_t bytes) noexcept {
    const auto last = std::prev(spans_.lower_bound(end));
    auto node = free_.extract({last->second.bytes, last->first});
    last->second.bytes -= bytes;
    if (last->second.bytes == 0) {
      spans_.erase(last);
      return;
    }
    node.value().first = last->second.bytes;
    free_.insert(std::move(node));
  }

  /// A block of `bytes`; null if no span holds it.
  char* take(std::size_t bytes) {
    bytes = rounded(bytes);
    const auto found = free_.lower_bound({bytes, nullptr});
    if (found == free_.end()) return nullptr;
    char* const p = found->second;
    Span& span = spans_.find(p)->second;
    if (const std::size_t rest = span.bytes - bytes; rest > 0) {
      auto node = made(rest, p + bytes);
      spans_.emplace(p + bytes, Span{rest, false, {}});
      free_.insert(std::move(node));
      span.bytes = bytes;
    }
    span.node = free_.extract(found);
    return p;
  }

  /// Whether take() gave this block.
  bool holds(char* p) const { return spans_.find(p) != spans_.end(); }

  /// A block that take() gave. Allocates nothing.
  void give_back(char* p) noexcept {
    auto at = spans_.find(p);
    Free::node_type node = std::move(at->second.node);
    if (const auto next = std::next(at); next != spans_.end() && !next->second.first_of_region && next->second.node.empty()) join(at, next);
    if (!at->second.first_of_region)
      if (const auto before = std::prev(at); before->second.node.empty()) {
        free_.erase({before->second.bytes, before->first});
        before->second.bytes += at->second.bytes;
        spans_.erase(at);
        at = before;
      }
    node.value() = {at->second.bytes, at->first};
    free_.insert(std::move(node));
  }

  /// f(begin, bytes) for each region that is free as a whole, which is forgotten.
  template <class F> void drop_free_regions(F f) {
    for (auto at = spans_.begin(); at != spans_.end();) {
      const auto next = std::next(at);
      if (at->second.first_of_region && at->second.node.empty() && (next == spans_.end() || next->second.first_of_region)) {
        free_.erase({at->second.bytes, at->first});
        f(at->first, at->second.bytes);
        spans_.erase(at);
      }
      at = next;
    }
  }

  /// f(begin, bytes) for each free span.
  template <class F> void each_free(F f) const {
    for (const auto& [bytes, begin] : free_) f(begin, bytes);
  }

 private:
  using Free = std::set<std::pair<std::size_t, char*>>;  // by size, then address
  struct Span {
    std::size_t bytes;
    bool first_of_region;
    Free::node_type node;  // of a block in use: its place among the free ones, for when it comes back; empty: it is free
  };
  using All = std::map<char*, Span>;

  static Free::node_type made(std::size_t bytes, char* p) {
    Free one{{bytes, p}};
    return one.extract(one.begin());
  }

  /// `next`, which is free, becomes a part of the span before it.
  void join(All::iterator at, All::iterator next) noexcept {
    free_.erase({next->second.bytes, next->first});
    at->second.bytes += next->second.bytes;
    spans_.erase(next);
  }

  All spans_;
  Free free_;
};

}  // namespace mezzo
