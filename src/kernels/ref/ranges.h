// ranges.h - rounding to any number format, by definition: in double, one element at a time.
#pragma once

#include <algorithm>
#include <cmath>

#include "kernels/ranges.h"

namespace mezzo::kernels::ref {

/// floor(log2 |x|) of a finite x != 0.
inline int exponent_of(double x) { return std::ilogb(x); }

/// x to the nearest number of the format's elements, ties to even.
inline double round_element(const NumberFormat& f, double x) {
  if (std::isnan(x)) return x;
  const double a = std::fabs(x);
  if (std::isinf(x)) return f.infinite ? x : std::copysign(f.max, x);
  if (a == 0) return x;
  const int e = f.exponent_bits == 0 ? 0 : std::max(exponent_of(a), f.min_exponent());
  const double step = std::ldexp(1.0, e - f.mantissa_bits), y = std::nearbyint(a / step) * step;
  if (y > f.max) return f.infinite ? std::copysign(HUGE_VAL, x) : std::copysign(f.max, x);
  return std::copysign(y, x);
}

/// log2 of the scale of a block whose largest magnitude is given (finite).
inline int block_exponent(const NumberFormat& f, double largest) {
  return largest == 0 ? 0 : std::clamp(exponent_of(largest) - exponent_of(f.max), -127, 127);
}

}  // namespace mezzo::kernels::ref
