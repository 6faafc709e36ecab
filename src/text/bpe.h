// bpe.h - byte-pair merging of one word (Sennrich et al., arXiv 1508.07909): always the pair of lowest rank, the leftmost of equals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mezzo::text {

/// Which pairs of tokens merge into which, and how early. A hash table of two probes or so.
class MergeTable {
 public:
  MergeTable() = default;
  explicit MergeTable(std::size_t expected) { reserve(expected); }
  struct Merge {
    std::int32_t rank, result;
  };
  void reserve(std::size_t merges);
  /// The first rank given to a pair stays. Ids are not negative.
  void add(std::int32_t left, std::int32_t right, Merge);
  /// Null if the two do not merge.
  const Merge* find(std::int32_t left, std::int32_t right) const noexcept {
    if (slots_.empty()) return nullptr;
    for (std::size_t i = place(left, right);; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& s = slots_[i];
      if (s.left == left && s.right == right) return &s.merge;
      if (s.left < 0) return nullptr;
    }
  }
  std::size_t size() const noexcept { return size_; }

 private:
  struct Slot {
    std::int32_t left = -1, right = -1;
    Merge merge{};
  };
  std::size_t place(std::int32_t left, std::int32_t right) const noexcept {
    const auto key = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15u >> shift_);  // Knuth's multiplicative hashing: the high bits
  }
  std::vector<Slot> slots_;
  int shift_ = 64;
  std::size_t size_ = 0;
};

/// Merges words; keeps its buffers between them.
class Merger {
 public:
  /// `ids` shrink to the word's tokens. n log n for a word of n.
  void merge(const MergeTable&, std::vector<std::int32_t>& ids);

 private:
  struct Symbol {
    std::int32_t id, previous, next;  // neighbours by index; -1: none. id -1: merged into the one before
  };
  struct Candidate {
    std::int32_t rank, at, left, right, result;
  };
  void consider(const MergeTable&, std::int32_t at);
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace mezzo::text
