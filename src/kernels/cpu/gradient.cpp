// gradient.cpp - one look at a gradient (norm, Inf, NaN, zeros), and its scaling in place. Both run at the speed of memory.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/gradient.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "core/dry_run.h"
#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/gradient-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/gradient.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// ---- a few vectors that f32 cannot sum: in f64 -------------------------------------------------------

// f32 vectors half as wide as the widest, so that each widens to one vector of f64: the square of an f32 is exact there and neither
// overflows nor underflows. So the sum is finite exactly if every element is.
using Wide = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Wide>;

template <class T, class Round> void AddExactly(Gradient<T, Round> gradient, std::size_t n, GradStats& stats) {
  const Narrow d;
  const Wide wide;
  auto squares = hn::Zero(wide);
  ForEachVector(d, n, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto x = access.Keep(d, gradient.Scale(d, gradient.Load(d, i, access)), hn::Zero(d));
    const auto x_wide = hn::PromoteTo(wide, x);
    squares = hn::MulAdd(x_wide, x_wide, squares);
    stats.inf += static_cast<std::int64_t>(hn::CountTrue(d, hn::IsInf(x)));
    stats.nan += static_cast<std::int64_t>(hn::CountTrue(d, hn::IsNaN(x)));
  });
  stats.sum_squares += hn::GetLane(hn::SumOfLanes(wide, squares));
}

// ---- the rest: in f32, a short chain of additions at a time -------------------------------------------

struct StatSums {
  hn::Vec<hn::ScalableTag<float>> squares, zeros;  // zeros are counted in f32: exact, a run is far below 2^24
};

template <class T, class Round> GradStats GradStatsOf(Gradient<T, Round> gradient, std::size_t n) {
  const hn::ScalableTag<float> d;
  const auto zero = hn::Zero(d), one = hn::Set(d, 1.0f);
  // Eight additions in each of Fold's accumulators, two that join them and at most four that join 16 lanes: at most 14 roundings, less than
  // 1e-6, whatever is added up.
  const std::size_t run = 32 * hn::Lanes(d);
  // Below the lower bound squares that vanished could matter; above the upper one something may have overflowed, or be Inf or NaN.
  constexpr float kLow = 0x1p-80f, kHigh = 0x1p120f;
  GradStats stats;
  for (std::size_t begin = 0; begin < n; begin += run) {
    const std::size_t size = std::min(run, n - begin);
    const Gradient<T, Round> part{gradient.g + begin, gradient.scale};
    const StatSums sums = Fold(
        d, size, StatSums{zero, zero},
        [&](StatSums acc, std::size_t i, auto access) MEZZO_BODY {
          const auto g = part.Load(d, i, access);
          const auto x = access.Keep(d, part.Scale(d, g), zero);
          return StatSums{hn::MulAdd(x, x, acc.squares), hn::Add(acc.zeros, access.Keep(d, hn::IfThenElseZero(hn::Eq(g, zero), one), zero))};
        },
        [](StatSums a, StatSums b) MEZZO_BODY {
          return StatSums{hn::Add(a.squares, b.squares), hn::Add(a.zeros, b.zeros)};
        });
    const float squares = hn::GetLane(hn::SumOfLanes(d, sums.squares));
    const auto zeros = static_cast<std::size_t>(hn::GetLane(hn::SumOfLanes(d, sums.zeros)));
    stats.zero += static_cast<std::int64_t>(zeros);
    if (squares >= kLow && squares <= kHigh) stats.sum_squares += static_cast<double>(squares);
    else if (zeros < size || !(squares == 0)) AddExactly(part, size, stats);
  }
  return stats;
}

void GradStatsBlock(Dtype dtype, Dtype round, const void* g, std::int64_t n, ref::ScaleFactors scale, GradStats* stats) {
  dispatch_low_or_f32(dtype, "grad_stats", [&]<class T>() {
    const T* p = static_cast<const T*>(g);
    if (round == dtype || round == f32) *stats = GradStatsOf(Gradient<T, T>{p, scale}, n);
    else dispatch_16bit(round, "grad_stats", [&]<class Round>() { *stats = GradStatsOf(Gradient<T, Round>{p, scale}, n); });
  });
}

template <class T> void ScaleOf(T* g, std::size_t n, ref::ScaleFactors scale) {
  const hn::ScalableTag<float> d;
  const Gradient<T, T> gradient{g, scale};
  ForEachVector(d, n, [&](std::size_t i, auto access) MEZZO_BODY { access.Store(gradient.Scale(d, gradient.Load(d, i, access)), d, g + i); });
}

void ScaleRange(Dtype dtype, void* g, std::int64_t n, ref::ScaleFactors scale) {
  dispatch_low_or_f32(dtype, "scale_inplace", [&]<class T>() { ScaleOf(static_cast<T*>(g), n, scale); });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(GradStatsBlock);
HWY_EXPORT(ScaleRange);

void grad_stats(Queue& queue, Dtype dtype, const void* g, std::int64_t n, double scale, GradStats* stats, Dtype round) {
  // Blocks of a fixed size, added up in order: the sum does not depend on the number of threads.
  constexpr std::int64_t kBlock = 32768;
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  const Block scratch = queue.scratch(blocks * sizeof(GradStats));
  GradStats* found = scratch.as<GradStats>();  // (blocks)
  const ref::ScaleFactors factors(scale);
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t size = std::min(kBlock, n - k * kBlock);
      if (dtype == f64) found[k] = ref::grad_stats(static_cast<const double*>(g) + k * kBlock, size, scale);
      else HWY_DYNAMIC_DISPATCH(GradStatsBlock)(dtype, round, row_of(g, dtype, k, kBlock), size, factors, found + k);
    }
  });
  *stats = {};
  if (DryRun::active()) return;
  for (std::int64_t k = 0; k < blocks; ++k) {
    stats->sum_squares += found[k].sum_squares;
    stats->inf += found[k].inf;
    stats->nan += found[k].nan;
    stats->zero += found[k].zero;
  }
}

void scale_inplace(Queue&, Dtype dtype, void* g, std::int64_t n, double scale) {
  constexpr std::int64_t kGrain = 32768, kAlign = 64;
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        if (dtype == f64) {
          for (std::int64_t i = begin; i < end; ++i) static_cast<double*>(g)[i] *= scale;
        } else {
          HWY_DYNAMIC_DISPATCH(ScaleRange)(dtype, row_of(g, dtype, begin, 1), end - begin, ref::ScaleFactors(scale));
        }
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
