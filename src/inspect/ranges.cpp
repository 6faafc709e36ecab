// ranges.cpp - what one tensor holds, and what a format would make of it.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <mezzo/autograd.h>

#include "core/fail.h"
#include "inspect/values.h"
#include "tensor/impl.h"
#include "tensor/layout.h"

namespace mezzo::inspect {

// ---- elements --------------------------------------------------------------------------------------

Tensor readable(const Tensor& t) {
  require_defined("inspect", t, "the tensor");
  if (!is_floating(t.dtype())) fail("inspect", fmt::format("a tensor of {} given, a floating dtype wanted", name(t.dtype())));
  const Dtype dtype = t.dtype() == Dtype::f64 ? Dtype::f32 : t.dtype();
  if (t.is_contiguous() && t.dtype() == dtype) return t;
  Tensor c = make_tensor(t.shape(), dtype);
  copy_elements(c, t);
  return c;
}

Sample::Sample(std::int64_t n, std::int64_t limit) {
  constexpr std::int64_t kPieces = 64, kMultiple = 32;
  pieces = n <= limit ? 1 : kPieces;
  length = pieces == 1 ? n : std::max(kMultiple, limit / kPieces / kMultiple * kMultiple);
  stride = pieces == 1 ? 0 : (n - length) / (pieces - 1) / kMultiple * kMultiple;
}

std::vector<float> sampled(const Tensor& t, const Sample& s) {
  std::vector<float> out(static_cast<std::size_t>(s.size()));
  const auto width = static_cast<std::int64_t>(size_of(t.dtype()));
  for (std::int64_t p = 0; p < s.pieces; ++p)
    kernels::convert(kernels::cpu_queue(), t.dtype(), Dtype::f32, static_cast<const std::byte*>(data(t)) + s.begin(p) * width,
                     out.data() + p * s.length, s.length);
  return out;
}

// ---- ranges ----------------------------------------------------------------------------------------

namespace {
constexpr int kLeastExponent = -127;  // where f32's subnormals are counted

Ranges to_ranges(const kernels::RangeStats& s) {
  Ranges r{.count = s.count, .zero = s.zero, .inf = s.inf, .nan = s.nan, .largest = s.largest, .smallest = s.smallest};
  const auto used = [](std::int64_t n) { return n > 0; };
  const auto first = std::find_if(s.exponents.begin(), s.exponents.end(), used);
  if (first == s.exponents.end()) return r;
  const auto last = std::find_if(s.exponents.rbegin(), s.exponents.rend(), used).base();
  r.first_exponent = kLeastExponent + static_cast<int>(first - s.exponents.begin());
  r.exponents.assign(first, last);
  return r;
}
}  // namespace

std::int64_t Ranges::below(int exponent) const {
  std::int64_t n = 0;
  for (std::size_t i = 0; i < exponents.size() && first_exponent + static_cast<int>(i) < exponent; ++i) n += exponents[i];
  return n;
}

Ranges& Ranges::operator+=(const Ranges& o) {
  count += o.count, zero += o.zero, inf += o.inf, nan += o.nan;
  largest = std::max(largest, o.largest);
  smallest = std::min(smallest, o.smallest);
  if (o.exponents.empty()) return *this;
  if (exponents.empty()) first_exponent = o.first_exponent;
  if (o.first_exponent < first_exponent) {
    exponents.insert(exponents.begin(), static_cast<std::size_t>(first_exponent - o.first_exponent), 0);
    first_exponent = o.first_exponent;
  }
  const auto shift = static_cast<std::size_t>(o.first_exponent - first_exponent);
  exponents.resize(std::max(exponents.size(), shift + o.exponents.size()));
  for (std::size_t i = 0; i < o.exponents.size(); ++i) exponents[shift + i] += o.exponents[i];
  return *this;
}

Ranges ranges(const Tensor& given) {
  const Tensor t = readable(given);
  kernels::RangeStats stats;
  auto& queue = kernels::cpu_queue();
  kernels::range_stats(queue, t.dtype(), data(t), t.numel(), &stats);
  return to_ranges(kernels::read(queue, &stats));
}

// ---- other formats ---------------------------------------------------------------------------------

std::vector<std::string_view> formats() {
  std::vector<std::string_view> names;
  for (const auto& f : kernels::kNumberFormats) names.push_back(f.name);
  return names;
}

const kernels::NumberFormat& format_named(std::string_view wanted) {
  for (const auto& f : kernels::kNumberFormats)
    if (f.name == wanted) return f;
  fail("inspect", fmt::format("format \"{}\" given, one of {} wanted", wanted, fmt::join(formats(), ", ")));
}

Conversion to_conversion(const kernels::NumberFormat& f, const kernels::ConversionStats& s) {
  const double of = static_cast<double>(std::max<std::int64_t>(1, s.nonzero));
  return {.format = f.name,
          .flushed = static_cast<double>(s.flushed) / of,
          .subnormal = static_cast<double>(s.subnormal) / of,
          .saturated = static_cast<double>(s.saturated) / of,
          .snr_db = s.noise > 0 ? 10 * std::log10(s.signal / s.noise) : std::numeric_limits<double>::infinity()};
}

namespace {
kernels::ConversionStats convert(const kernels::NumberFormat& f, const Tensor& given, float* y) {
  Tensor x = readable(given);
  if (x.dtype() != Dtype::f32) {
    const Tensor wide = make_tensor(x.shape(), Dtype::f32);
    copy_elements(wide, x);
    x = wide;
  }
  kernels::ConversionStats stats;
  auto& queue = kernels::cpu_queue();
  kernels::convert_to_format(queue, f, static_cast<const float*>(data(x)), y, x.numel(), &stats);
  return kernels::read(queue, &stats);
}
}  // namespace

Conversion conversion(const Tensor& t, std::string_view format) {
  const auto& f = format_named(format);
  return to_conversion(f, convert(f, t, nullptr));
}

Tensor round_to(const Tensor& t, std::string_view format) {
  const auto& f = format_named(format);
  require_defined("inspect", t, "the tensor");
  Tensor y = make_tensor(t.shape(), Dtype::f32);
  convert(f, t, static_cast<float*>(mutable_data(y)));
  return y;
}

}  // namespace mezzo::inspect
