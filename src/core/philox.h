// philox.h - Philox4x32-10 and the maps from its bits to numbers, inline for kernels.
#pragma once

#include <array>
#include <cstdint>

namespace mezzo::philox {

/// Block `counter` (with the stream number `stream` in its upper half) of the sequence of `key`: four 32-bit numbers.
/// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
inline std::array<std::uint32_t, 4> block(std::uint64_t key, std::uint64_t counter, std::uint64_t stream = 0) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter), c1 = static_cast<std::uint32_t>(counter >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

/// [0, 1) from the upper kBits, exact in a format of so many significant bits: 24 for f32.
template <int kBits = 24> float uniform(std::uint32_t u) {
  return static_cast<float>(u >> (32 - kBits)) * (1 / static_cast<float>(std::uint32_t{1} << kBits));
}

// Coefficients of normal_pair, for vector kernels that must give its bits: rising powers of the argument's square, Horner's scheme,
// doubles, no FMA. Taylor series, cut where the next term is below 2^-53 of the result on the reduced range.
inline constexpr std::array<double, 10> kArtanh = {1.0, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19};  // / s
inline constexpr std::array<double, 9> kSine = {1.0,
                                                -1.0 / 6,
                                                1.0 / 120,
                                                -1.0 / 5040,
                                                1.0 / 362880,
                                                -1.0 / 39916800,
                                                1.0 / 6227020800.0,
                                                -1.0 / 1307674368000.0,
                                                1.0 / 355687428096000.0};  // / angle
inline constexpr std::array<double, 9> kCosine = {
    1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600, -1.0 / 87178291200.0, 1.0 / 20922789888000.0};
inline constexpr double kLn2 = 0x1.62e42fefa39efp-1, kTwoPi = 0x1.921fb54442d18p+2;
inline constexpr std::uint64_t kSqrtHalfBits = 0x3fe6a09e667f3bcdull;  // of sqrt(1/2)

/// Two standard normal numbers from two 32-bit ones (Box-Muller with own log, sin and cos: the same bits on every machine).
std::array<double, 2> normal_pair(std::uint32_t u0, std::uint32_t u1);

}  // namespace mezzo::philox
