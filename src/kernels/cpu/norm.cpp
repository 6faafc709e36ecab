// norm.cpp - layer norm and RMS norm over rows, forward and backward. Storage T, arithmetic f32, sums f32 by block then f64, one rounding on store.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/norm.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

template <class T> ref::NormStats<float> NormStatsOf(bool rms, const T* x, std::size_t c, double eps) {
  const hn::ScalableTag<float> d;
  const double n = static_cast<double>(c);
  const float mean = rms ? 0.0f : static_cast<float>(Sum(d, c, [&](std::size_t i, auto access) MEZZO_BODY { return access.Load(d, x + i); }) / n);
  const auto center = hn::Set(d, mean);
  const double squares = Sum(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto centered = hn::Sub(access.Load(d, x + i), center);
    return hn::Mul(centered, centered);
  });
  return {mean, static_cast<float>(1.0 / std::sqrt(squares / n + eps))};
}

template <class T> ref::NormStats<float> NormRow(bool rms, const T* x, const float* w, const float* b, T* y, std::size_t c, double eps) {
  const hn::ScalableTag<float> d;
  const auto stats = NormStatsOf(rms, x, c, eps);
  const auto mean = hn::Set(d, stats.mean), rstd = hn::Set(d, stats.rstd);
  ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto xhat = hn::Mul(hn::Sub(access.Load(d, x + i), mean), rstd);
    access.Store(hn::MulAdd(xhat, access.Load(d, w + i), access.Load(d, b + i)), d, y + i);
  });
  return stats;
}

// Rows [0, rows); w and b (c, f32); mean and rstd (rows) may be null.
void NormRows(bool rms, Dtype dtype, const void* x, const float* w, const float* b, void* y, float* mean, float* rstd, std::int64_t rows,
              std::int64_t c, double eps) {
  dispatch_low_or_f32(dtype, "layer_norm", [&]<class T>() {
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto stats = NormRow(rms, static_cast<const T*>(x) + r * c, w, b, static_cast<T*>(y) + r * c, c, eps);
      if (mean) mean[r] = stats.mean;
      if (rstd) rstd[r] = stats.rstd;
    }
  });
}

// What a row needs in the second pass of its backward.
struct NormBackwardRow {
  float mean, rstd, mean_dxhat, mean_dxhat_xhat;
};

template <class T> NormBackwardRow NormBackwardStats(const T* x, const float* w, float mean, float rstd, const T* dy, std::size_t c) {
  const hn::ScalableTag<float> d;
  using V = hn::VFromD<decltype(d)>;
  const auto center = hn::Set(d, mean);
  const auto sums = SumTwo(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto dxhat = hn::Mul(access.Load(d, dy + i), access.Load(d, w + i));
    return Two<V>{dxhat, hn::Mul(dxhat, hn::Sub(access.Load(d, x + i), center))};
  });
  const double n = static_cast<double>(c);
  return {mean, rstd, static_cast<float>(sums.first / n), static_cast<float>(sums.second * static_cast<double>(rstd) / n)};
}

// kRows rows at once, so that dw and db (c) pass through the registers once for all of them.
template <int kRows, bool kWeights, class T> void NormBackwardGroup(bool rms, const T* x, const float* w, const float* mean, const float* rstd,
                                                                    const T* dy, const T* dres, T* dx, float* dw, float* db, std::size_t c) {
  const hn::ScalableTag<float> d;
  NormBackwardRow row[kRows];
  for (int k = 0; k < kRows; ++k) {
    row[k] = NormBackwardStats(x + k * c, w, rms ? 0.0f : mean[k], rstd[k], dy + k * c, c);
    if (rms) row[k].mean_dxhat = 0.0f;
  }
  ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto weight = access.Load(d, w + i);
    auto dw_sum = hn::Zero(d), db_sum = hn::Zero(d);
    for (int k = 0; k < kRows; ++k) {
      const std::size_t at = k * c + i;
      const auto grad = access.Load(d, dy + at);
      const auto xhat = hn::Mul(hn::Sub(access.Load(d, x + at), hn::Set(d, row[k].mean)), hn::Set(d, row[k].rstd));
      if constexpr (kWeights) {
        dw_sum = hn::MulAdd(grad, xhat, dw_sum);
        db_sum = hn::Add(db_sum, grad);
      }
      const auto centered = hn::NegMulAdd(xhat, hn::Set(d, row[k].mean_dxhat_xhat), hn::MulSub(grad, weight, hn::Set(d, row[k].mean_dxhat)));
      const auto through = hn::Mul(centered, hn::Set(d, row[k].rstd));
      access.Store(dres ? hn::Add(through, access.Load(d, dres + at)) : through, d, dx + at);
    }
    if constexpr (kWeights) {
      access.Store(hn::Add(access.Load(d, dw + i), dw_sum), d, dw + i);
      access.Store(hn::Add(access.Load(d, db + i), db_sum), d, db + i);
    }
  });
}

template <bool kWeights, class T> void NormBackwardAll(bool rms, const T* x, const float* w, const float* mean, const float* rstd, const T* dy,
                                                       const T* dres, T* dx, float* dw, float* db, std::int64_t rows, std::int64_t c) {
  constexpr int kGroup = 4;
  const auto run = [&]<int kRows>(std::int64_t r) {
    NormBackwardGroup<kRows, kWeights>(rms, x + r * c, w, mean ? mean + r : nullptr, rstd + r, dy + r * c, dres ? dres + r * c : nullptr, dx + r * c,
                                       dw, db, c);
  };
  std::int64_t r = 0;
  for (; r + kGroup <= rows; r += kGroup) run.template operator()<kGroup>(r);
  for (; r < rows; ++r) run.template operator()<1>(r);
}

// Rows [0, rows); w (c, f32); dw and db (c, f32) are added to; both null: not wanted.
void NormBackwardRows(bool rms, Dtype dtype, const void* x, const float* w, const float* mean, const float* rstd, const void* dy, const void* dres,
                      void* dx, float* dw, float* db, std::int64_t rows, std::int64_t c) {
  dispatch_low_or_f32(dtype, "layer_norm_backward", [&]<class T>() {
    const auto run = dw ? NormBackwardAll<true, T> : NormBackwardAll<false, T>;
    run(rms, static_cast<const T*>(x), w, mean, rstd, static_cast<const T*>(dy), static_cast<const T*>(dres), static_cast<T*>(dx), dw, db, rows, c);
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(NormRows);
HWY_EXPORT(NormBackwardRows);
namespace {

// Weights (c) as A; `absent` where there are none.
template <class A> class Weights {
 public:
  Weights(Queue& queue, Dtype dtype, const void* w, std::int64_t c, A absent) : p_(static_cast<const A*>(w)) {
    if (w && dtype == dtype_of<A>) return;
    block_ = queue.scratch(c * sizeof(A));
    if (w) convert(queue, dtype, dtype_of<A>, w, block_.as<A>(), c);
    else std::fill_n(block_.as<A>(), c, absent);
    p_ = block_.as<A>();
  }
  const A* get() const { return p_; }

 private:
  const A* p_;
  Block block_;
};

// dw and db are summed over fixed chunks of rows, each into a buffer of its own; the chunks are added up in order. The chunks
// depend on the shape only, so the sums do not depend on the number of threads.
constexpr std::int64_t kMaxChunks = 64, kMinChunkRows = 32;
std::int64_t chunk_rows(std::int64_t rows) {
  const std::int64_t wanted = std::max(kMinChunkRows, (rows + kMaxChunks - 1) / kMaxChunks);
  return (wanted + 3) / 4 * 4;
}

// out (c) = (accumulate ? out : 0) + the sum of part k at parts + k * stride.
template <class A> void sum_parts(const A* parts, std::int64_t count, std::int64_t stride, A* out, bool accumulate, std::int64_t c) {
  parallel_for(
      c, 4096,
      [&](std::int64_t begin, std::int64_t end) {
        if (!accumulate) std::fill(out + begin, out + end, A(0));
        for (std::int64_t k = 0; k < count; ++k) {
          const A* part = parts + k * stride;
          for (std::int64_t i = begin; i < end; ++i) out[i] += part[i];
        }
      },
      16);
}

// Runs run(begin, end, dw, db) over the chunks of rows, and adds their dw and db (c) to the caller's.
template <class A, class Run> void by_chunks(Queue& queue, std::int64_t rows, std::int64_t c, A* dw, A* db, bool accumulate, Run run) {
  if (!dw && !db) {
    return parallel_for(rows, row_grain(c),
                        [&](std::int64_t begin, std::int64_t end) { run(begin, end, static_cast<A*>(nullptr), static_cast<A*>(nullptr)); });
  }
  const std::int64_t step = chunk_rows(rows), chunks = (rows + step - 1) / step;
  const Block block = queue.scratch(chunks * 2 * c * sizeof(A));
  A* parts = block.as<A>();  // (chunks, 2, c)
  parallel_for(chunks, std::max<std::int64_t>(1, row_grain(c) / step), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) {
      A* part = parts + k * 2 * c;
      std::fill_n(part, 2 * c, A(0));
      run(k * step, std::min(rows, (k + 1) * step), part, part + c);
    }
  });
  if (dw) sum_parts(parts, chunks, 2 * c, dw, accumulate, c);
  if (db) sum_parts(parts + c, chunks, 2 * c, db, accumulate, c);
}

}  // namespace

void layer_norm(Queue& queue, bool rms, Dtype dtype, Dtype weights, const void* x, const void* w, const void* b, void* y, void* mean, void* rstd,
                std::int64_t rows, std::int64_t c, double eps) {
  if (c == 0) return;
  if (dtype == f64) {
    const Weights<double> wide_w(queue, weights, w, c, 1.0), wide_b(queue, weights, b, c, 0.0);
    return parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const auto stats =
            ref::layer_norm(rms, static_cast<const double*>(x) + r * c, wide_w.get(), wide_b.get(), static_cast<double*>(y) + r * c, c, eps);
        if (mean) static_cast<double*>(mean)[r] = stats.mean;
        if (rstd) static_cast<double*>(rstd)[r] = stats.rstd;
      }
    });
  }
  const Weights<float> wide_w(queue, weights, w, c, 1.0f), wide_b(queue, weights, b, c, 0.0f);
  parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormRows)
    (rms, dtype, row_of(x, dtype, begin, c), wide_w.get(), wide_b.get(), row_of(y, dtype, begin, c), static_cast<float*>(row_of(mean, f32, begin, 1)),
     static_cast<float*>(row_of(rstd, f32, begin, 1)), end - begin, c, eps);
  });
}

void layer_norm_backward(Queue& queue, bool rms, Dtype dtype, Dtype weights, const void* x, const void* w, const void* mean, const void* rstd,
                         const void* dy, const void* dres, void* dx, void* dw, void* db, bool accumulate, std::int64_t rows, std::int64_t c) {
  if (c == 0) return;
  if (dtype == f64) {
    const Weights<double> wide_w(queue, weights, w, c, 1.0);
    const auto run = [&](std::int64_t begin, std::int64_t end, double* dw_part, double* db_part) {
      for (std::int64_t r = begin; r < end; ++r) {
        const ref::NormStats<double> stats{rms ? 0.0 : static_cast<const double*>(mean)[r], static_cast<const double*>(rstd)[r]};
        ref::layer_norm_backward(rms, static_cast<const double*>(x) + r * c, wide_w.get(), stats, static_cast<const double*>(dy) + r * c,
                                 dres ? static_cast<const double*>(dres) + r * c : nullptr, static_cast<double*>(dx) + r * c, dw_part, db_part, c);
      }
    };
    return by_chunks(queue, rows, c, static_cast<double*>(dw), static_cast<double*>(db), accumulate, run);
  }
  const Weights<float> wide_w(queue, weights, w, c, 1.0f);
  const auto run = [&](std::int64_t begin, std::int64_t end, float* dw_part, float* db_part) {
    HWY_DYNAMIC_DISPATCH(NormBackwardRows)
    (rms, dtype, row_of(x, dtype, begin, c), wide_w.get(), static_cast<const float*>(row_of(mean, f32, begin, 1)),
     static_cast<const float*>(row_of(rstd, f32, begin, 1)), row_of(dy, dtype, begin, c), row_of(dres, dtype, begin, c), row_of(dx, dtype, begin, c),
     dw_part, db_part, end - begin, c);
  };
  by_chunks(queue, rows, c, static_cast<float*>(dw), static_cast<float*>(db), accumulate, run);
}

}  // namespace mezzo::kernels
#endif
