// thin.cpp - products of few rows: bound by reading the matrix, so each of its rows is unpacked once and meets every row of A while it is in the
// first cache. Products and sums in f32, one rounding on store. Each element is summed in the same order whatever the number of threads.
#include "kernels/gemm/thin.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/thin.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <type_traits>

#include "core/dry_run.h"
#include "core/fail.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::VFromD<D>;
constexpr std::int64_t kGroup = 64;  // columns of C whose sums are stored together

template <class W> HWY_INLINE float Dot(const float* x, const W* y, std::int64_t n) {
  const D d;
  const V sum = Fold(
      d, static_cast<std::size_t>(n), hn::Zero(d),
      [&](V acc, std::size_t i, auto access) MEZZO_BODY { return hn::MulAdd(access.Load(d, x + i), access.Load(d, y + i), acc); },
      [](V a, V b) MEZZO_BODY { return hn::Add(a, b); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// c[j] = sums[j] + bias[j] + residual[j] for a few columns of a row.
template <class T> void Store(const Gemm& g, const float* sums, std::int64_t row, std::int64_t column, std::int64_t n, void* c) {
  const D d;
  const std::int64_t at = row * g.ldc + column;
  ForEachVector(d, static_cast<std::size_t>(n), [&](std::size_t i, auto access) MEZZO_BODY {
    V v = access.Load(d, sums + i);
    if (g.bias)
      v = hn::Add(v, g.bias_dtype == f32 ? access.Load(d, static_cast<const float*>(g.bias) + column + i)
                                         : access.Load(d, static_cast<const T*>(g.bias) + column + i));
    if (g.residual) v = hn::Add(v, access.Load(d, static_cast<const T*>(g.residual) + at + i));
    access.Store(v, d, static_cast<T*>(c) + at + i);
  });
}

/// Columns [begin, end) of C: rows of w, of elements W or unpacked to f32. a is (m, k), f32.
template <class T, class W> void Columns(const Gemm& g, const float* a, const ThinMatrix& w, void* c, std::int64_t begin, std::int64_t end) {
  alignas(64) float unpacked[kThinPiece];
  float sums[kThinRows][kGroup];
  for (std::int64_t j = begin; j < end; j += kGroup) {
    const std::int64_t n = std::min(kGroup, end - j);
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t i = 0; i < g.m; ++i) sums[i][r] = 0;
      for (std::int64_t p = 0; p < g.k; p += kThinPiece) {
        const std::int64_t length = std::min(kThinPiece, g.k - p);
        const void* from = at(w.x, (j + r) * w.row_bytes + p / w.elements * w.bytes, 1);
        const W* row = static_cast<const W*>(from);
        if constexpr (std::is_same_v<W, float>) {
          if (w.unpack) w.unpack(from, unpacked, length), row = unpacked;
        }
        for (std::int64_t i = 0; i < g.m; ++i) sums[i][r] += Dot(a + i * g.k + p, row, length);
      }
    }
    for (std::int64_t i = 0; i < g.m; ++i) Store<T>(g, sums[i], i, j, n, c);
  }
}

using RunColumns = void (*)(const Gemm&, const float*, const ThinMatrix&, void*, std::int64_t, std::int64_t);
RunColumns PickColumns(Dtype c, Dtype w) {
  const auto with = [w]<class T>() -> RunColumns { return w == f32 ? Columns<T, float> : w == bf16 ? Columns<T, bf16_t> : Columns<T, f16_t>; };
  return c == f32 ? with.operator()<float>() : c == bf16 ? with.operator()<bf16_t>() : with.operator()<f16_t>();
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {

HWY_EXPORT(PickColumns);

namespace {
constexpr std::int64_t kDirectRows = 2;  // that read 16-bit elements as they are; more share what was unpacked
}

bool is_thin(const Gemm& g) {
  return g.m <= kThinRows && !g.trans_a && g.trans_b && g.batch == 1 && g.alpha == 1 && g.beta == 0 && (g.a == f32 || is_16bit(g.a));
}

void thin_gemm(Queue& queue, const Gemm& g, const void* a, const ThinMatrix& given, void* c) {
  ThinMatrix w = given;
  if (is_16bit(w.dtype) && g.m > kDirectRows) {
    w.unpack = conversion(w.dtype, f32);
    w.dtype = f32;
  }
  MEZZO_CHECK(is_thin(g) && kThinPiece % w.elements == 0 && g.k % w.elements == 0);
  const bool as_is = g.a == f32 && (g.lda == g.k || g.m == 1);
  const Block widened = as_is ? Block() : queue.scratch(static_cast<std::size_t>(g.m * g.k) * sizeof(float));
  if (DryRun::active()) return;
  const float* rows = as_is ? static_cast<const float*>(a) : widened.as<float>();
  if (!as_is) {
    const Conversion widen = conversion(g.a, f32);
    for (std::int64_t i = 0; i < g.m; ++i) widen(at(a, i * g.lda, size_of(g.a)), widened.as<float>() + i * g.k, g.k);
  }
  const auto run = HWY_DYNAMIC_DISPATCH(PickColumns)(g.c, w.dtype);
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, g.k));
  parallel_for(
      g.n, grain, [&](std::int64_t begin, std::int64_t end) { run(g, rows, w, c, begin, end); }, kAlign / 4);
}

}  // namespace mezzo::kernels
#endif
