// ulp.h - errors in units in the last place of a format, and where the worst one is.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "guarded.h"

namespace mezzo::test {

/// The distance between neighbouring numbers of T around x.
template <class T> double ulp(double x) {
  const FormatInfo f = format_info(dtype_of<T>);
  const double magnitude = std::min(std::abs(x), f.max);
  return magnitude < f.min_normal ? f.min_subnormal : std::ldexp(f.epsilon, std::ilogb(magnitude));
}

/// |got - want| in ulps of T at want. Inf counts as the number after the largest; NaN only matches NaN, a wanted Inf only itself.
template <class T> double error_in_ulps(T got, double want) {
  constexpr double kWrong = std::numeric_limits<double>::infinity();
  const double beyond = format_info(dtype_of<T>).max + ulp<T>(format_info(dtype_of<T>).max);
  double g = value(got);
  if (std::isnan(want) || std::isnan(g)) return std::isnan(want) && std::isnan(g) ? 0 : kWrong;
  if (std::isinf(want)) return g == want ? 0 : kWrong;
  if (std::isinf(g)) g = std::copysign(beyond, g);
  if (std::abs(want) > beyond) want = std::copysign(beyond, want);
  return std::abs(g - want) / ulp<T>(want);
}

/// The largest error, in ulps or as a share of what is allowed, and what it was at.
class Worst {
 public:
  void look(double error, double at, double got, double want) {
    if (error <= error_) return;  // a NaN is never below
    error_ = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
    text_ = fmt::format("{:.4g} at {:.9g}: got {:.9g}, want {:.9g}", error_, at, got, want);
  }
  double error() const { return error_; }
  const std::string& text() const { return text_; }

 private:
  double error_ = -1;
  std::string text_ = "none";
};

}  // namespace mezzo::test
