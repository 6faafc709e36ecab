// scan.cpp - running sums along the middle of (outer, n, inner). f32, f16, bf16: sums in f32, one rounding on store; others: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scan.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "dtype/dispatch.h"
#include "kernels/cpu/conversion.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/ref/reduce.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

struct Sum {
  template <class D, class V> HWY_INLINE V operator()(D, V a, V b) const { return hn::Add(a, b); }
};
struct Same {
  template <class D, class V> HWY_INLINE V operator()(D, V x) const { return x; }
};

/// Columns: sums (columns) += x, y = sums.
template <class From, class To> void ScanRow(const void* x, void* y, float* sums, std::int64_t columns) {
  Map(columns, sums, Sum(), Elements<float>{sums}, Elements<From>{static_cast<const From*>(x)});
  Map(columns, static_cast<To*>(y), Same(), Elements<float>{sums});
}

using RowScan = void (*)(const void* x, void* y, float* sums, std::int64_t columns);

template <class From> RowScan RowScanFrom(Dtype to) {
  return to == f32 ? ScanRow<From, float> : to == f16 ? ScanRow<From, f16_t> : ScanRow<From, bf16_t>;
}
RowScan PickRowScan(Dtype from, Dtype to) {
  return from == f32 ? RowScanFrom<float>(to) : from == f16 ? RowScanFrom<f16_t>(to) : RowScanFrom<bf16_t>(to);
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickRowScan);

constexpr std::int64_t kStrip = 1024;  // columns whose sums stay in L1
constexpr std::int64_t kBlock = 1024;  // contiguous elements scanned between two roundings of the carry

// Running sums of a block in place, plus the carry; returns their total in f64. Four elements wait for one addition to the running sum, not four.
double scan_block(float* v, std::int64_t n, float carry) {
  float sum = 0;
  double total[4] = {};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const float a = v[i], b = v[i + 1], c = v[i + 2], d = v[i + 3];
    for (int k = 0; k < 4; ++k) total[k] += static_cast<double>(v[i + k]);
    v[i] = carry + (sum + a);
    v[i + 1] = carry + (sum + (a + b));
    v[i + 2] = carry + (sum + ((a + b) + c));
    sum += (a + b) + (c + d);
    v[i + 3] = carry + sum;
  }
  for (; i < n; ++i) {
    total[0] += static_cast<double>(v[i]);
    v[i] = carry + (sum += v[i]);
  }
  return (total[0] + total[1]) + (total[2] + total[3]);
}

// One contiguous row; the carry from block to block is kept in f64, so the error does not grow with the row.
void scan_run(Conversion widen, Conversion narrow, const void* x, std::size_t x_bytes, void* y, std::size_t y_bytes, std::int64_t n, bool reverse) {
  alignas(kAlignment) float block[kBlock];
  double carry = 0;
  for (std::int64_t done = 0; done < n; done += kBlock) {
    const std::int64_t count = std::min(kBlock, n - done), first = reverse ? n - done - count : done;
    widen(at(x, first, x_bytes), block, count);
    if (reverse) std::reverse(block, block + count);
    carry += scan_block(block, count, static_cast<float>(carry));
    if (reverse) std::reverse(block, block + count);
    narrow(block, at(y, first, y_bytes), count);
  }
}

void cumsum_f32(Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool reverse) {
  const std::size_t x_bytes = size_of(from), y_bytes = size_of(to);
  if (inner == 1) {
    const Conversion widen = conversion(from, f32), narrow = conversion(f32, to);
    parallel_for(outer, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, n)), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t o = begin; o < end; ++o) scan_run(widen, narrow, at(x, o * n, x_bytes), x_bytes, at(y, o * n, y_bytes), y_bytes, n, reverse);
    });
    return;
  }
  const auto scan_row = HWY_DYNAMIC_DISPATCH(PickRowScan)(from, to);
  const std::int64_t strips = (inner + kStrip - 1) / kStrip;
  parallel_for(outer * strips, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, n * std::min(inner, kStrip))),
               [&](std::int64_t begin, std::int64_t end) {
                 alignas(kAlignment) float sums[kStrip];
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t column = i % strips * kStrip, columns = std::min(kStrip, inner - column),
                                      first = i / strips * n * inner + column;
                   std::fill_n(sums, columns, 0.0f);
                   for (std::int64_t k = 0; k < n; ++k) {
                     const std::int64_t row = first + (reverse ? n - 1 - k : k) * inner;
                     scan_row(at(x, row, x_bytes), at(y, row, y_bytes), sums, columns);
                   }
                 }
               });
}

}  // namespace

void cumsum(Queue& queue, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool reverse) {
  const bool low = from == f32 || is_16bit(from);
  if (low && (to == f32 || is_16bit(to))) return cumsum_f32(from, to, x, y, outer, n, inner, reverse);
  const Dtype sum_dtype = low ? f32 : from == f64 ? f64 : i64;
  Block workspace;
  void* sums = y;
  if (to != sum_dtype) {
    workspace = queue.scratch(static_cast<std::size_t>(outer * n * inner) * size_of(sum_dtype));
    sums = workspace.as<void>();
  }
  if (low) {
    cumsum_f32(from, f32, x, sums, outer, n, inner, reverse);
  } else {
    dispatch_all(from, "cumsum", [&]<class T>() {
      using A = ref::Accumulator<T>;
      parallel_for(outer * inner, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, n)), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t first = i / inner * n * inner + i % inner;
          ref::cumsum(static_cast<const T*>(x) + first, static_cast<A*>(sums) + first, n, inner, reverse);
        }
      });
    });
  }
  if (to != sum_dtype) convert(queue, sum_dtype, to, sums, y, outer * n * inner);
}

}  // namespace mezzo::kernels
#endif
