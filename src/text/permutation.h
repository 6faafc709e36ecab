// permutation.h - a random order of 0 .. n-1 that is computed and not stored.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/philox.h"

namespace mezzo::text {

/// A bijection of [0, n) onto itself, a function of (seed, number) only. A Feistel network (Luby and Rackoff, 1988) permutes the next larger
/// domain of 4^k values, its round function being Philox; a value that falls outside [0, n) is sent through again until it falls inside
/// (cycle walking: Black and Rogaway, "Ciphers with arbitrary finite domains", 2002), less than four times on average for n > 16.
class Permutation {
 public:
  Permutation(std::uint64_t n, std::uint64_t seed, std::uint64_t number)
      : n_(n), seed_(seed), stream_(kStream ^ number), half_bits_(std::max(3, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2)) {}

  /// Where i in [0, n) goes.
  std::uint64_t operator()(std::uint64_t i) const {
    do i = network(i);
    while (i >= n_);
    return i;
  }

 private:
  static constexpr int kRounds = 8;                                 // four would do for large domains; on small ones more look more random
  static constexpr std::uint64_t kStream = 0x6f72'6465'7200'0000u;  // apart from other uses of the same seed

  std::uint64_t network(std::uint64_t i) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
    std::uint64_t left = i >> half_bits_, right = i & mask;
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t mixed = left ^ (philox::block(seed_, round << 32 | right, stream_)[0] & mask);
      left = right;
      right = mixed;
    }
    return left << half_bits_ | right;
  }

  std::uint64_t n_, seed_, stream_;
  int half_bits_;
};

}  // namespace mezzo::text
