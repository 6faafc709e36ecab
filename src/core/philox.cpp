// philox.cpp - Generator, the default one, and normal numbers from own elementary functions.
#include "core/philox.h"

#include <bit>
#include <cmath>

#include <mezzo/random.h>

#include "core/fail.h"

namespace mezzo {
namespace philox {
namespace {

template <std::size_t N> double polynomial(const std::array<double, N>& c, double x) {
  double y = c[N - 1];
  for (std::size_t i = N - 1; i-- > 0;) y = y * x + c[i];
  return y;
}

// ln of a normal, positive number: exponent and mantissa m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh((m - 1) / (m + 1)).
double natural_log(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  // Adding the distance from sqrt(1/2) to 1 carries into the exponent exactly when the mantissa is to be halved.
  const std::uint64_t shifted = bits + (std::bit_cast<std::uint64_t>(1.0) - kSqrtHalfBits);
  const double exponent = static_cast<double>(static_cast<std::int32_t>(shifted >> 52) - 1023);
  const double m = std::bit_cast<double>((shifted & 0x000fffffffffffffull) + kSqrtHalfBits);
  const double s = (m - 1.0) / (m + 1.0);
  return exponent * kLn2 + 2.0 * s * polynomial(kArtanh, s * s);
}

}  // namespace

std::array<double, 2> normal_pair(std::uint32_t u0, std::uint32_t u1) {
  // u0: a number in (0, 1), the middle of its 2^-32 wide cell, so the radius is finite and not 0.
  const double radius = std::sqrt(-2.0 * natural_log((static_cast<double>(u0) + 0.5) * 0x1p-32));
  // u1: an angle in turns; the nearest quarter turn and an exact remainder in [-1/8, 1/8).
  const std::uint32_t quarter = (u1 + 0x20000000u) >> 30;
  const double angle = static_cast<double>(static_cast<std::int32_t>(u1 - (quarter << 30))) * 0x1p-32 * kTwoPi;
  const double square = angle * angle;
  const double sine = angle * polynomial(kSine, square), cosine = polynomial(kCosine, square);
  const double x = quarter & 1 ? -sine : cosine, y = quarter & 1 ? cosine : sine;
  return quarter & 2 ? std::array<double, 2>{radius * -x, radius * -y} : std::array<double, 2>{radius * x, radius * y};
}

}  // namespace philox

namespace {
std::uint64_t pair64(std::uint32_t high, std::uint32_t low) { return std::uint64_t{high} << 32 | low; }
}  // namespace

std::array<std::uint32_t, 4> Generator::next() { return philox::block(seed_, counter_++); }

double Generator::uniform() {
  const auto b = next();
  return static_cast<double>(pair64(b[0], b[1]) >> 11) * 0x1p-53;
}

double Generator::normal() {
  const auto b = next();
  return philox::normal_pair(b[0], b[1])[0];
}

// Lemire, "Fast random integer generation in an interval" (2019): the upper half of a 128-bit product, with the few draws
// rejected that would make some results likelier.
std::uint64_t Generator::below(std::uint64_t n) {
  if (n == 0) fail("Generator::below", "got n = 0, wanted n >= 1");
  __extension__ using Wide = unsigned __int128;
  const std::uint64_t reject = (0 - n) % n;  // 2^64 mod n
  for (;;) {
    const auto b = next();
    for (int i = 0; i < 4; i += 2) {
      const Wide product = static_cast<Wide>(pair64(b[i], b[i + 1])) * n;
      if (static_cast<std::uint64_t>(product) >= reject) return static_cast<std::uint64_t>(product >> 64);
    }
  }
}

Generator& default_generator() {
  static Generator generator(0);
  return generator;
}

void manual_seed(std::uint64_t seed) { default_generator() = Generator(seed); }

}  // namespace mezzo
