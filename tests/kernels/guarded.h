// guarded.h - what the kernel tests share: guarded buffers at any alignment, random values, comparison with an oracle in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <mezzo/dtype.h>

namespace mezzo::test {

template <class T> double value(T x) { return static_cast<double>(x); }
inline double value(f16_t x) { return static_cast<double>(static_cast<float>(x)); }
inline double value(bf16_t x) { return static_cast<double>(static_cast<float>(x)); }

template <class T> T rounded(double x) { return static_cast<T>(x); }
template <> inline f16_t rounded(double x) { return f16_t(static_cast<float>(x)); }
template <> inline bf16_t rounded(double x) { return bf16_t(static_cast<float>(x)); }

/// Largest relative error of one rounding to T; and the largest absolute one among its subnormals.
template <class T> double unit() { return format_info(dtype_of<T>).epsilon / 2; }
template <class T> double tiny() { return format_info(dtype_of<T>).min_subnormal / 2; }
inline constexpr double kUnit32 = 0x1p-24;

/// n elements that begin `offset` elements after a multiple of 64 bytes, between guard bytes that a kernel must not touch.
template <class T> class Guarded {
 public:
  explicit Guarded(std::int64_t n, std::int64_t offset = 0) : n_(n), bytes_(kGuard * 2 + (n + offset) * sizeof(T) + 64, kFill) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data() + kGuard);
    begin_ = kGuard + (64 - address % 64) % 64 + offset * sizeof(T);
  }
  template <class F> Guarded(std::int64_t n, std::int64_t offset, F make) : Guarded(n, offset) {
    for (std::int64_t i = 0; i < n; ++i) data()[i] = rounded<T>(make());
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + begin_); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + begin_); }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }
  std::int64_t size() const { return n_; }
  std::vector<double> values() const {
    std::vector<double> v(n_);
    for (std::int64_t i = 0; i < n_; ++i) v[i] = value(data()[i]);
    return v;
  }
  bool same_bits(const Guarded& o) const { return n_ == o.n_ && std::memcmp(data(), o.data(), n_ * sizeof(T)) == 0; }
  /// Nothing was written before the first or after the last element.
  bool intact() const {
    const auto filled = [](unsigned char b) { return b == kFill; };
    return std::all_of(bytes_.begin(), bytes_.begin() + begin_, filled) &&
           std::all_of(bytes_.begin() + begin_ + n_ * sizeof(T), bytes_.end(), filled);
  }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr unsigned char kFill = 0xa5;
  std::int64_t n_;
  std::vector<unsigned char> bytes_;
  std::size_t begin_;
};

/// Normal numbers, the same for the same seed.
class Normals {
 public:
  explicit Normals(unsigned seed, double scale = 1, double mean = 0) : engine_(seed), normal_(mean, scale) {}
  double operator()() { return normal_(engine_); }

 private:
  std::mt19937 engine_;
  std::normal_distribution<double> normal_;
};

/// got within tolerance(i) of want; where want is NaN or infinite, got is too. The worst element is reported.
template <class T, class Tolerance>
void check_close(const std::string& what, const Guarded<T>& got, const std::vector<double>& want, Tolerance tolerance) {
  REQUIRE(got.size() == static_cast<std::int64_t>(want.size()));
  double worst = 0;
  std::string worst_text;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double g = value(got[i]), w = want[i], allowed = tolerance(i);
    double ratio = std::abs(g - w) / allowed;
    if (std::isnan(w) || std::isinf(w) || g == w) ratio = (std::isnan(w) ? std::isnan(g) : g == w) ? 0 : std::numeric_limits<double>::infinity();
    if (ratio <= worst) continue;  // false for NaN
    worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
    worst_text = fmt::format("element {} of {}: got {}, want {}, tolerance {:.3g}", i, got.size(), g, w, allowed);
    if (std::isinf(worst)) break;
  }
  CHECK_MESSAGE(worst <= 1, what, " ", mezzo::name(dtype_of<T>), ": ", worst_text);
  CHECK_MESSAGE(got.intact(), what, " wrote outside its output");
}

/// How far f32 lanes may be from the exact sum of n terms, relative to the sum of their sizes: one rounding for each addition of the longest
/// chain (four accumulators of one lane or more over blocks of 2048), and a few for the terms and for joining the lanes.
inline double sum_error(std::int64_t n) { return (static_cast<double>(std::min<std::int64_t>(n, 2048)) / 4 + 10) * kUnit32; }

/// Lengths from nothing to two of the widest vectors and one more, and some that are longer and odd.
inline std::vector<std::int64_t> lengths(std::initializer_list<std::int64_t> more) {
  std::vector<std::int64_t> all(34);
  for (std::int64_t i = 0; i < 34; ++i) all[i] = i;
  all.insert(all.end(), more);
  return all;
}

/// The derivative of f at x in the direction of its element i: Im f(x + ih) / h, exact to rounding because nothing is subtracted.
template <class F> double complex_step(std::vector<std::complex<double>> x, std::int64_t i, F f) {
  constexpr double kStep = 0x1p-300;
  x[i] += std::complex<double>(0, kStep);
  return std::complex<double>(f(x)).imag() / kStep;
}

}  // namespace mezzo::test
