// ranges.cpp - one pass that counts what a tensor holds, and rounding to narrow formats. Counts are integers, so no order of summing shows.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/ranges.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/dry_run.h"
#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/ranges.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// ---- counting --------------------------------------------------------------------------------------

constexpr std::uint32_t kInfBits = 0x7f800000u;

/// The exponent fields of a run go to memory as bytes, from which four tables are counted in turn: the same exponent comes many times in a row, and
/// one table would wait for its own last store.
class ExponentCounts {
 public:
  static constexpr std::size_t kRun = 512;
  std::uint8_t* fields() { return fields_; }
  void Count(std::size_t n) {
    std::size_t i = 0;
    for (; i + 4 <= n; i += 4)
      for (std::size_t t = 0; t < 4; ++t) ++tables_[t][fields_[i + t]];
    for (; i < n; ++i) ++tables_[0][fields_[i]];
  }
  std::int64_t operator[](std::size_t e) const { return std::int64_t{tables_[0][e]} + tables_[1][e] + tables_[2][e] + tables_[3][e]; }

 private:
  HWY_ALIGN std::uint8_t fields_[kRun + 64];
  std::uint32_t tables_[4][256] = {};
};

template <class T> void RangesOf(const T* x, std::size_t n, RangeStats& stats) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<std::uint8_t, decltype(d)> d8;
  using VU = hn::VFromD<decltype(du)>;
  ExponentCounts exponents;
  // As numbers, magnitudes rise with their bits. A zero less one is the largest number there is, so it never is the smallest.
  VU largest = hn::Zero(du), smallest = hn::Set(du, ~0u);
  const VU one = hn::Set(du, 1u), inf = hn::Set(du, kInfBits), magnitude = hn::Set(du, ~0x80000000u);
  std::int64_t zeros = 0, infs = 0;
  for (std::size_t begin = 0; begin < n; begin += ExponentCounts::kRun) {
    const std::size_t size = std::min(ExponentCounts::kRun, n - begin);
    VU zero_lanes = hn::Zero(du), inf_lanes = hn::Zero(du);
    ForEachVector(d, size, [&](std::size_t i, auto access) MEZZO_BODY {
      const VU bits = hn::And(hn::BitCast(du, access.Load(d, x + begin + i)), magnitude);
      const VU kept = hn::BitCast(du, access.Keep(d, hn::BitCast(d, bits), hn::BitCast(d, inf)));
      const auto finite = hn::Lt(kept, inf);
      largest = hn::IfThenElse(finite, hn::Max(largest, kept), largest);
      smallest = hn::Min(smallest, hn::Sub(kept, one));
      const VU counted = hn::BitCast(du, access.Keep(d, hn::BitCast(d, one), hn::Zero(d)));
      zero_lanes = hn::Add(zero_lanes, hn::And(counted, hn::VecFromMask(du, hn::Eq(kept, hn::Zero(du)))));
      inf_lanes = hn::Add(inf_lanes, hn::And(counted, hn::VecFromMask(du, hn::Eq(bits, inf))));
      hn::StoreU(hn::DemoteTo(d8, hn::BitCast(di, hn::ShiftRight<23>(bits))), d8, exponents.fields() + i);
    });
    zeros += hn::GetLane(hn::SumOfLanes(du, zero_lanes));
    infs += hn::GetLane(hn::SumOfLanes(du, inf_lanes));
    exponents.Count(size);
  }
  stats = {};
  stats.count = static_cast<std::int64_t>(n);
  stats.zero = zeros;
  stats.inf = infs;
  stats.nan = exponents[255] - infs;
  for (std::size_t e = 0; e < stats.exponents.size(); ++e) stats.exponents[e] = exponents[e];
  stats.exponents[0] -= zeros;
  stats.largest = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(du, largest)));
  const std::uint32_t least = hn::GetLane(hn::MinOfLanes(du, smallest)) + 1;
  if (least != 0 && least < kInfBits) stats.smallest = std::bit_cast<float>(least);
}

void RangesBlock(Dtype dtype, const void* x, std::int64_t n, RangeStats* stats) {
  dispatch_low_or_f32(dtype, "range_stats", [&]<class T>() { RangesOf(static_cast<const T*>(x), static_cast<std::size_t>(n), *stats); });
}

// ---- rounding --------------------------------------------------------------------------------------

// f32 vectors half as wide as the widest: each widens to one vector of f64, in which squares of any f32 neither overflow nor vanish.
using Wide = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Wide>;
using V = hn::VFromD<Narrow>;

/// |x| rounded to the steps of a format, without an end: what is beyond the format's largest number stays beyond it.
class Steps {
 public:
  explicit Steps(const NumberFormat& f)
      : bound_(hn::Set(d_, static_cast<float>(2 * f.max))),
        least_(hn::Set(du_, static_cast<std::uint32_t>(f.min_exponent() + 127))),
        to_step_(hn::Set(du_, static_cast<std::uint32_t>(23 - f.mantissa_bits))),
        fixed_(f.exponent_bits == 0) {}

  // Adding the power of two whose ulp is the step rounds to it, to nearest even. Magnitudes are held at twice the largest number, so that power is
  // a number as well.
  HWY_INLINE V operator()(V a) const {
    const auto held = hn::Min(a, bound_);
    const auto field = hn::ShiftRight<23>(hn::BitCast(du_, held));
    const auto e = fixed_ ? least_ : hn::Max(field, least_);
    const auto power = hn::BitCast(d_, hn::ShiftLeft<23>(hn::Add(e, to_step_)));
    return hn::Sub(hn::Add(held, power), power);
  }

 private:
  Narrow d_;
  hn::RebindToUnsigned<Narrow> du_;
  V bound_;
  hn::VFromD<hn::RebindToUnsigned<Narrow>> least_, to_step_;
  bool fixed_;
};

/// bfloat16 has f32's range, where that power would not be a number.
struct StepsOfBf16 {
  HWY_INLINE V operator()(V a) const {
    const Narrow d;
    return FromBits16<bf16_t>(d, ToBits16<bf16_t>(d, a));
  }
};

/// y = scale * format(x / scale) of [0, n), and what that did.
template <class Round>
void Convert(const NumberFormat& f, Round round, const float* x, float* y, std::size_t n, float scale, float unscale, ConversionStats& stats) {
  const Narrow d;
  const Wide wide;
  const auto zero = hn::Zero(d), max = hn::Set(d, static_cast<float>(f.max)), normal = hn::Set(d, std::ldexp(1.0f, f.min_exponent()));
  const auto end = f.infinite ? hn::Inf(d) : max;
  const bool has_subnormals = f.exponent_bits > 0;
  auto signal = hn::Zero(wide), noise = hn::Zero(wide);
  const auto count = [&](auto mask) MEZZO_BODY { return static_cast<std::int64_t>(hn::CountTrue(d, mask)); };
  ForEachVector(d, n, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto v = access.Load(d, x + i);
    const auto a = hn::Mul(hn::Abs(v), hn::Set(d, unscale));
    const auto steps = round(a);
    const auto beyond = hn::Gt(steps, max);
    const auto r = hn::IfThenElse(beyond, end, steps);
    const auto result = hn::IfThenElse(hn::IsNaN(v), v, hn::CopySign(hn::Mul(r, hn::Set(d, scale)), v));
    const auto finite = hn::Gt(access.Keep(d, hn::IfThenElseZero(hn::IsFinite(v), hn::Set(d, 1.0f)), zero), zero);
    const auto nonzero = hn::And(finite, hn::Gt(hn::Abs(v), zero));
    stats.finite += count(finite);
    stats.nonzero += count(nonzero);
    stats.flushed += count(hn::And(nonzero, hn::Eq(r, zero)));
    if (has_subnormals) stats.subnormal += count(hn::And(hn::Gt(r, zero), hn::And(nonzero, hn::Lt(r, normal))));
    stats.saturated += count(hn::And(finite, beyond));
    const auto measured = hn::And(finite, hn::IsFinite(result));
    const auto in = hn::PromoteTo(wide, hn::IfThenElseZero(measured, v)), out = hn::PromoteTo(wide, hn::IfThenElseZero(measured, result));
    const auto error = hn::Sub(out, in);
    signal = hn::MulAdd(in, in, signal);
    noise = hn::MulAdd(error, error, noise);
    if (y) access.Store(result, d, y + i);
  });
  stats.signal += hn::GetLane(hn::SumOfLanes(wide, signal));
  stats.noise += hn::GetLane(hn::SumOfLanes(wide, noise));
}

/// A block that holds NaN or Inf: its scale is NaN, and so is every element.
void ConvertLost(const float* x, float* y, std::size_t n, ConversionStats& stats) {
  for (std::size_t i = 0; i < n; ++i) {
    stats.finite += std::isfinite(x[i]);
    stats.nonzero += std::isfinite(x[i]) && x[i] != 0;
    if (y) y[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

void ConvertBlocks(const NumberFormat& f, const float* x, float* y, std::size_t n, ConversionStats& stats) {
  const Steps round(f);
  const Narrow d;
  const auto block = static_cast<std::size_t>(f.block);
  const int top = std::ilogb(f.max);
  for (std::size_t begin = 0; begin < n; begin += block) {
    const std::size_t size = std::min(block, n - begin);
    const float* const in = x + begin;
    float* const out = y ? y + begin : nullptr;
    auto largest = hn::Zero(d);
    bool lost = false;
    ForEachVector(d, size, [&](std::size_t i, auto access) MEZZO_BODY {
      const auto v = access.Load(d, in + i);
      lost = lost || !hn::AllTrue(d, hn::IsFinite(v));
      largest = hn::Max(largest, hn::Abs(v));
    });
    if (lost) {
      ConvertLost(in, out, size, stats);
      continue;
    }
    const float m = hn::GetLane(hn::MaxOfLanes(d, largest));
    const int k = m == 0 ? 0 : std::clamp(std::ilogb(m) - top, -127, 127);
    Convert(f, round, in, out, size, std::ldexp(1.0f, k), std::ldexp(1.0f, -k), stats);
  }
}

void ConvertRange(const NumberFormat& f, const float* x, float* y, std::int64_t n, ConversionStats* stats) {
  const auto size = static_cast<std::size_t>(n);
  *stats = {};
  if (f.block > 0) ConvertBlocks(f, x, y, size, *stats);
  else if (f.max > 0x1p127) Convert(f, StepsOfBf16{}, x, y, size, 1, 1, *stats);
  else Convert(f, Steps(f), x, y, size, 1, 1, *stats);
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(RangesBlock);
HWY_EXPORT(ConvertRange);

RangeStats& RangeStats::operator+=(const RangeStats& o) {
  count += o.count, zero += o.zero, inf += o.inf, nan += o.nan;
  largest = std::max(largest, o.largest);
  smallest = std::min(smallest, o.smallest);
  for (std::size_t e = 0; e < exponents.size(); ++e) exponents[e] += o.exponents[e];
  return *this;
}

ConversionStats& ConversionStats::operator+=(const ConversionStats& o) {
  finite += o.finite, nonzero += o.nonzero, flushed += o.flushed, subnormal += o.subnormal, saturated += o.saturated;
  signal += o.signal, noise += o.noise;
  return *this;
}

namespace {
/// part(k, begin, size) of blocks of a fixed size, so that sums do not depend on the number of threads; then they are added in order.
template <class Stats, class Part> void by_blocks(Queue& queue, std::int64_t n, std::int64_t block, Stats* total, Part part) {
  const std::int64_t blocks = (n + block - 1) / block;
  const Block scratch = queue.scratch(static_cast<std::size_t>(blocks) * sizeof(Stats));
  Stats* found = scratch.as<Stats>();  // (blocks)
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t k = first; k < last; ++k) part(k * block, std::min(block, n - k * block), found + k);
  });
  if (total) *total = {};
  if (DryRun::active() || !total) return;
  for (std::int64_t k = 0; k < blocks; ++k) *total += found[k];
}
}  // namespace

void range_stats(Queue& queue, Dtype dtype, const void* x, std::int64_t n, RangeStats* stats) {
  by_blocks(queue, n, std::int64_t{1} << 17, stats, [&](std::int64_t begin, std::int64_t size, RangeStats* found) {
    HWY_DYNAMIC_DISPATCH(RangesBlock)(dtype, row_of(x, dtype, begin, 1), size, found);
  });
}

void convert_to_format(Queue& queue, const NumberFormat& f, const float* x, float* y, std::int64_t n, ConversionStats* stats) {
  by_blocks(queue, n, std::int64_t{1} << 15, stats, [&](std::int64_t begin, std::int64_t size, ConversionStats* found) {
    HWY_DYNAMIC_DISPATCH(ConvertRange)(f, x + begin, y ? y + begin : nullptr, size, found);
  });
}

}  // namespace mezzo::kernels
#endif
