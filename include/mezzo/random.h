// random.h - the counter-based random number generator.
#pragma once

#include <array>
#include <cstdint>

#include <mezzo/error.h>

namespace mezzo {

/// Philox4x32-10 (Salmon et al., SC'11): a key and a counter. Every draw is a pure function of
/// (seed, counter), so a stream can be seeked, split and stored as two numbers. Normal and uniform
/// values do not depend on the standard library or the instruction set.
class MEZZO_API Generator {
 public:
  explicit Generator(std::uint64_t seed, std::uint64_t counter = 0) : seed_(seed), counter_(counter) {}
  std::uint64_t seed() const { return seed_; }
  /// Blocks of four 32-bit numbers used so far: with seed() the whole state.
  std::uint64_t counter() const { return counter_; }
  void seek(std::uint64_t counter) { counter_ = counter; }
  /// Reserves `blocks` blocks of four numbers and returns the first one's counter.
  std::uint64_t reserve(std::uint64_t blocks) {
    const auto c = counter_;
    counter_ += blocks;
    return c;
  }

  std::array<std::uint32_t, 4> next();   ///< one block
  double uniform();                      ///< [0, 1), 53 bits; uses one block
  double normal();                       ///< mean 0, variance 1; uses one block
  std::uint64_t below(std::uint64_t n);  ///< uniform in [0, n), unbiased; Error if n == 0

  friend bool operator==(const Generator&, const Generator&) = default;

 private:
  std::uint64_t seed_, counter_;
};

/// Reseeds the process's default generator (also the key of dropout and of stochastic rounding).
MEZZO_API void manual_seed(std::uint64_t seed);
/// The default generator: seed 0 until manual_seed. Not for use by several threads at once.
MEZZO_API Generator& default_generator();

}  // namespace mezzo
