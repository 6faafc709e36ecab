// channel_norm.cpp - batch norm and group norm over x (N, C, L). Storage T, arithmetic f32, sums f32 by block then f64, one rounding on store.
//
// x is read once for its statistics: a block's mean and the squares around it in two passes within the cache, blocks joined in f64. The elements
// of one channel of one image, a segment of L, share every coefficient; without L (batch norm of (N, C)) vectors run across channels instead.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/channel_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/channel_norm.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/channel_norm.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// ---- segments: coefficients are one number -----------------------------------------------------------

/// Moments of n contiguous elements, few enough to stay in the cache.
void BlockMoments(Dtype dtype, const void* x_p, std::int64_t n, Moments* out) {
  dispatch_low_or_f32(dtype, "channel_stats", [&]<class T>() {
    const hn::ScalableTag<float> d;
    const T* x = static_cast<const T*>(x_p);
    const auto count = static_cast<std::size_t>(n);
    const double mean = Sum(d, count, [&](std::size_t i, auto access) MEZZO_BODY { return access.Load(d, x + i); }) / static_cast<double>(n);
    const float near = static_cast<float>(mean);
    const auto center = hn::Set(d, near);
    const double squares = Sum(d, count, [&](std::size_t i, auto access) MEZZO_BODY {
      const auto centered = hn::Sub(access.Load(d, x + i), center);
      return hn::Mul(centered, centered);
    });
    const double off = mean - static_cast<double>(near);
    *out = {static_cast<double>(n), mean, squares - static_cast<double>(n) * off * off};
  });
}

/// Segments [begin, end) of y = (x - mean) (rstd w) + b.
void NormSegments(const ChannelNorm& s, const void* x_p, const float* mean, const float* rstd, const float* w, const float* b, void* y_p,
                  std::int64_t begin, std::int64_t end) {
  dispatch_low_or_f32(s.dtype, "channel_norm", [&]<class T>() {
    const hn::ScalableTag<float> d;
    for (std::int64_t segment = begin; segment < end; ++segment) {
      const std::int64_t channel = segment % s.c, set = ref::set_of(s, segment / s.c, channel);
      const T* x = static_cast<const T*>(x_p) + segment * s.l;
      T* y = static_cast<T*>(y_p) + segment * s.l;
      const auto center = hn::Set(d, mean[set]), scale = hn::Set(d, w ? rstd[set] * w[channel] : rstd[set]),
                 shift = hn::Set(d, b ? b[channel] : 0.0f);
      ForEachVector(d, static_cast<std::size_t>(s.l), [&](std::size_t i, auto access) MEZZO_BODY {
        access.Store(hn::MulAdd(hn::Sub(access.Load(d, x + i), center), scale, shift), d, y + i);
      });
    }
  });
}

/// Sums of segments [begin, end), one each.
void SumSegments(const ChannelNorm& s, const void* x_p, const float* mean, const void* dy_p, GradSums* sums, std::int64_t begin, std::int64_t end) {
  dispatch_low_or_f32(s.dtype, "channel_norm_backward", [&]<class T>() {
    const hn::ScalableTag<float> d;
    using V = hn::VFromD<decltype(d)>;
    for (std::int64_t segment = begin; segment < end; ++segment) {
      const T *x = static_cast<const T*>(x_p) + segment * s.l, *dy = static_cast<const T*>(dy_p) + segment * s.l;
      const auto center = hn::Set(d, mean[ref::set_of(s, segment / s.c, segment % s.c)]);
      const auto both = SumTwo(d, static_cast<std::size_t>(s.l), [&](std::size_t i, auto access) MEZZO_BODY {
        const auto grad = access.Load(d, dy + i);
        return Two<V>{grad, hn::Mul(grad, hn::Sub(access.Load(d, x + i), center))};
      });
      sums[segment] = {both.first, both.second};
    }
  });
}

/// dx of segments [begin, end); terms: one a segment.
void GradSegments(const ChannelNorm& s, const void* x_p, const float* mean, const void* dy_p, const GradTerms* terms, void* dx_p, std::int64_t begin,
                  std::int64_t end) {
  dispatch_low_or_f32(s.dtype, "channel_norm_backward", [&]<class T>() {
    const hn::ScalableTag<float> d;
    for (std::int64_t segment = begin; segment < end; ++segment) {
      const T *x = static_cast<const T*>(x_p) + segment * s.l, *dy = static_cast<const T*>(dy_p) + segment * s.l;
      T* dx = static_cast<T*>(dx_p) + segment * s.l;
      const auto center = hn::Set(d, mean[ref::set_of(s, segment / s.c, segment % s.c)]);
      const auto p = hn::Set(d, terms[segment].p), q = hn::Set(d, terms[segment].q), r = hn::Set(d, terms[segment].r);
      ForEachVector(d, static_cast<std::size_t>(s.l), [&](std::size_t i, auto access) MEZZO_BODY {
        const auto centered = hn::Sub(access.Load(d, x + i), center);
        access.Store(hn::NegMulAdd(q, centered, hn::MulSub(p, access.Load(d, dy + i), r)), d, dx + i);
      });
    }
  });
}

// ---- columns: x (rows, c), a coefficient for each column ----------------------------------------------

/// mean and squares around it (c) of each column of x (rows, c); few rows.
void ColumnMoments(Dtype dtype, const void* x_p, std::int64_t rows, std::int64_t c, float* mean, float* squares) {
  dispatch_low_or_f32(dtype, "channel_stats", [&]<class T>() {
    const hn::ScalableTag<float> d;
    const T* x = static_cast<const T*>(x_p);
    const auto share = hn::Set(d, 1.0f / static_cast<float>(rows));
    ForEachVector(d, static_cast<std::size_t>(c), [&](std::size_t i, auto access) MEZZO_BODY {
      auto sum = hn::Zero(d), around = hn::Zero(d);
      for (std::int64_t r = 0; r < rows; ++r) sum = hn::Add(sum, access.Load(d, x + r * c + i));
      const auto center = hn::Mul(sum, share);
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto centered = hn::Sub(access.Load(d, x + r * c + i), center);
        around = hn::MulAdd(centered, centered, around);
      }
      access.Store(center, d, mean + i);
      access.Store(around, d, squares + i);
    });
  });
}

/// y (rows, c) = (x - mean) scale + shift.
void NormColumns(Dtype dtype, const void* x_p, const float* mean, const float* scale, const float* shift, void* y_p, std::int64_t rows,
                 std::int64_t c) {
  dispatch_low_or_f32(dtype, "channel_norm", [&]<class T>() {
    const hn::ScalableTag<float> d;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* x = static_cast<const T*>(x_p) + r * c;
      T* y = static_cast<T*>(y_p) + r * c;
      ForEachVector(d, static_cast<std::size_t>(c), [&](std::size_t i, auto access) MEZZO_BODY {
        const auto centered = hn::Sub(access.Load(d, x + i), access.Load(d, mean + i));
        access.Store(hn::MulAdd(centered, access.Load(d, scale + i), access.Load(d, shift + i)), d, y + i);
      });
    }
  });
}

/// sum_dy, sum_dy_x (c) of x, dy (rows, c); few rows.
void SumColumns(Dtype dtype, const void* x_p, const float* mean, const void* dy_p, float* sum_dy, float* sum_dy_x, std::int64_t rows,
                std::int64_t c) {
  dispatch_low_or_f32(dtype, "channel_norm_backward", [&]<class T>() {
    const hn::ScalableTag<float> d;
    const T *x = static_cast<const T*>(x_p), *dy = static_cast<const T*>(dy_p);
    ForEachVector(d, static_cast<std::size_t>(c), [&](std::size_t i, auto access) MEZZO_BODY {
      const auto center = access.Load(d, mean + i);
      auto sum = hn::Zero(d), sum_x = hn::Zero(d);
      for (std::int64_t r = 0; r < rows; ++r) {
        const auto grad = access.Load(d, dy + r * c + i);
        sum = hn::Add(sum, grad);
        sum_x = hn::MulAdd(grad, hn::Sub(access.Load(d, x + r * c + i), center), sum_x);
      }
      access.Store(sum, d, sum_dy + i);
      access.Store(sum_x, d, sum_dy_x + i);
    });
  });
}

/// dx (rows, c) = p dy - q (x - mean) - r, with p, q, r (c).
void GradColumns(Dtype dtype, const void* x_p, const float* mean, const void* dy_p, const float* p, const float* q, const float* r, void* dx_p,
                 std::int64_t rows, std::int64_t c) {
  dispatch_low_or_f32(dtype, "channel_norm_backward", [&]<class T>() {
    const hn::ScalableTag<float> d;
    for (std::int64_t row = 0; row < rows; ++row) {
      const T *x = static_cast<const T*>(x_p) + row * c, *dy = static_cast<const T*>(dy_p) + row * c;
      T* dx = static_cast<T*>(dx_p) + row * c;
      ForEachVector(d, static_cast<std::size_t>(c), [&](std::size_t i, auto access) MEZZO_BODY {
        const auto centered = hn::Sub(access.Load(d, x + i), access.Load(d, mean + i));
        const auto through = hn::MulSub(access.Load(d, p + i), access.Load(d, dy + i), access.Load(d, r + i));
        access.Store(hn::NegMulAdd(access.Load(d, q + i), centered, through), d, dx + i);
      });
    }
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(BlockMoments);
HWY_EXPORT(NormSegments);
HWY_EXPORT(SumSegments);
HWY_EXPORT(GradSegments);
HWY_EXPORT(ColumnMoments);
HWY_EXPORT(NormColumns);
HWY_EXPORT(SumColumns);
HWY_EXPORT(GradColumns);
namespace {

constexpr std::int64_t kPiece = 4096;  // elements whose moments are one partial result: 16 KB stay in L1
constexpr std::int64_t kRows = 64;     // the same, of rows without L

bool by_columns(const ChannelNorm& s) { return s.l == 1 && s.groups == 0; }

/// body(chunk, first row, rows) for chunks of kRows rows of (n, c), whatever the number of threads.
template <class Body> void by_chunks(const ChannelNorm& s, Body body) {
  parallel_for((s.n + kRows - 1) / kRows, std::max<std::int64_t>(1, row_grain(s.c) / kRows), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = begin; k < end; ++k) body(k, k * kRows, std::min(kRows, s.n - k * kRows));
  });
}

void column_stats(Queue& queue, const ChannelNorm& s, const void* x, float* mean, float* var) {
  const std::int64_t chunks = (s.n + kRows - 1) / kRows;
  const Block block = queue.scratch(static_cast<std::size_t>(chunks * 2 * s.c) * sizeof(float));
  float* parts = block.as<float>();  // (chunks, 2, c)
  by_chunks(s, [&](std::int64_t k, std::int64_t first, std::int64_t rows) {
    HWY_DYNAMIC_DISPATCH(ColumnMoments)(s.dtype, row_of(x, s.dtype, first, s.c), rows, s.c, parts + k * 2 * s.c, parts + (k * 2 + 1) * s.c);
  });
  for (std::int64_t i = 0; i < s.c; ++i) {
    Moments all;
    for (std::int64_t k = 0; k < chunks; ++k)
      all.join({static_cast<double>(std::min(kRows, s.n - k * kRows)), parts[k * 2 * s.c + i], parts[(k * 2 + 1) * s.c + i]});
    mean[i] = static_cast<float>(all.mean);
    var[i] = static_cast<float>(all.squares / all.n);
  }
}

void segment_stats(Queue& queue, const ChannelNorm& s, const void* x, float* mean, float* var) {
  // Runs of contiguous elements of one set, in pieces.
  const std::int64_t run = s.groups ? s.set_size() : s.l, runs = s.groups ? s.sets() : s.n * s.c, pieces = (run + kPiece - 1) / kPiece;
  const Block block = queue.scratch(static_cast<std::size_t>(runs * pieces) * sizeof(Moments));
  auto* parts = block.as<Moments>();  // (runs, pieces)
  parallel_for(runs * pieces, row_grain(std::min(run, kPiece)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % pieces * kPiece;
      HWY_DYNAMIC_DISPATCH(BlockMoments)(s.dtype, row_of(x, s.dtype, i / pieces * run + first, 1), std::min(kPiece, run - first), parts + i);
    }
  });
  for (std::int64_t k = 0; k < s.sets(); ++k) {
    Moments all;
    for (std::int64_t r = k; r < runs; r += s.groups ? runs : s.c)
      for (std::int64_t i = 0; i < pieces; ++i) all.join(parts[r * pieces + i]);
    mean[k] = static_cast<float>(all.mean);
    var[k] = static_cast<float>(all.squares / all.n);
  }
}

/// Sums for each image and channel; (n, c), or (chunks of rows, c) without L: what is joined over the first dimension.
std::int64_t grad_sums(Queue& queue, const ChannelNorm& s, const void* x, const float* mean, const void* dy, GradSums* sums) {
  if (!by_columns(s)) {
    parallel_for(s.n * s.c, row_grain(s.l), [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(SumSegments)(s, x, mean, dy, sums, begin, end);
    });
    return s.n;
  }
  const std::int64_t chunks = (s.n + kRows - 1) / kRows;
  const Block block = queue.scratch(static_cast<std::size_t>(chunks * 2 * s.c) * sizeof(float));
  by_chunks(s, [&](std::int64_t k, std::int64_t first, std::int64_t rows) {
    float *sum = block.as<float>() + k * 2 * s.c, *sum_x = sum + s.c;
    HWY_DYNAMIC_DISPATCH(SumColumns)(s.dtype, row_of(x, s.dtype, first, s.c), mean, row_of(dy, s.dtype, first, s.c), sum, sum_x, rows, s.c);
    for (std::int64_t i = 0; i < s.c; ++i) sums[k * s.c + i] = {sum[i], sum_x[i]};
  });
  return chunks;
}

/// What dx is made of in each (image, channel), or each channel without L; from the sums of each (part, channel).
void grad_terms(const ChannelNorm& s, bool fixed, const GradSums* sums, std::int64_t parts, const float* rstd, const float* w, GradTerms* terms) {
  const double size = static_cast<double>(s.set_size());
  const std::int64_t per_set = s.groups ? s.c / s.groups : 1;
  for (std::int64_t set = 0; set < s.sets(); ++set) {
    const double r = rstd[set];
    GradSums all;  // of dy w
    const auto weight = [&](std::int64_t channel) { return w ? static_cast<double>(w[channel]) : 1.0; };
    const auto add = [&](const GradSums& g, double by) { all.dy += g.dy * by, all.dy_x += g.dy_x * by; };
    const std::int64_t first = s.groups ? set * per_set : set;  // the set's first (image, channel)
    if (s.groups)
      for (std::int64_t i = first; i < first + per_set; ++i) add(sums[i], weight(i % s.c));
    else
      for (std::int64_t k = 0; k < parts; ++k) add(sums[k * s.c + set], weight(set));
    GradTerms t{};
    if (!fixed) t.q = static_cast<float>(r * r * r * all.dy_x / size), t.r = static_cast<float>(r * all.dy / size);
    const auto give = [&](std::int64_t i, std::int64_t channel) { terms[i] = {static_cast<float>(r * weight(channel)), t.q, t.r}; };
    if (s.groups)
      for (std::int64_t i = first; i < first + per_set; ++i) give(i, i % s.c);
    else
      for (std::int64_t i = set; i < (by_columns(s) ? s.c : s.n * s.c); i += s.c) give(i, set);
  }
}

void give_weight(const ChannelNorm& s, const GradSums* sums, std::int64_t parts, const float* rstd, float* dw, float* db, bool accumulate) {
  for (std::int64_t channel = 0; channel < s.c; ++channel) {
    GradSums all;
    for (std::int64_t k = 0; k < parts; ++k) {
      const GradSums& g = sums[k * s.c + channel];
      all.dy += g.dy;
      all.dy_x += g.dy_x * static_cast<double>(rstd[ref::set_of(s, k, channel)]);
    }
    if (dw) dw[channel] = (accumulate ? dw[channel] : 0.0f) + static_cast<float>(all.dy_x);
    if (db) db[channel] = (accumulate ? db[channel] : 0.0f) + static_cast<float>(all.dy);
  }
}

}  // namespace

void channel_stats(Queue& queue, const ChannelNorm& s, const void* x, void* mean, void* var) {
  if (s.dtype == f64) return ref::channel_stats(s, static_cast<const double*>(x), static_cast<double*>(mean), static_cast<double*>(var));
  (by_columns(s) ? column_stats : segment_stats)(queue, s, x, static_cast<float*>(mean), static_cast<float*>(var));
}

void channel_norm(Queue& queue, const ChannelNorm& s, const void* x, const void* mean_p, const void* rstd_p, const void* w_p, const void* b_p,
                  void* y) {
  if (s.dtype == f64)
    return ref::channel_norm(s, static_cast<const double*>(x), static_cast<const double*>(mean_p), static_cast<const double*>(rstd_p),
                             static_cast<const double*>(w_p), static_cast<const double*>(b_p), static_cast<double*>(y));
  const auto *mean = static_cast<const float*>(mean_p), *rstd = static_cast<const float*>(rstd_p), *w = static_cast<const float*>(w_p),
             *b = static_cast<const float*>(b_p);
  if (!by_columns(s)) {
    return parallel_for(s.n * s.c, row_grain(s.l), [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(NormSegments)(s, x, mean, rstd, w, b, y, begin, end);
    });
  }
  const Block block = queue.scratch(static_cast<std::size_t>(2 * s.c) * sizeof(float));
  float *scale = block.as<float>(), *shift = scale + s.c;
  for (std::int64_t i = 0; i < s.c; ++i) scale[i] = w ? rstd[i] * w[i] : rstd[i], shift[i] = b ? b[i] : 0.0f;
  parallel_for(s.n, row_grain(s.c), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormColumns)(s.dtype, row_of(x, s.dtype, begin, s.c), mean, scale, shift, row_of(y, s.dtype, begin, s.c), end - begin, s.c);
  });
}

void channel_norm_backward(Queue& queue, const ChannelNorm& s, bool fixed, const void* x, const void* mean_p, const void* rstd_p, const void* w_p,
                           const void* dy, void* dx, void* dw, void* db, bool accumulate) {
  if (s.dtype == f64) {
    for (auto* p : {static_cast<double*>(dw), static_cast<double*>(db)})
      if (p && !accumulate) std::fill_n(p, s.c, 0.0);
    return ref::channel_norm_backward(s, fixed, static_cast<const double*>(x), static_cast<const double*>(mean_p), static_cast<const double*>(rstd_p),
                                      static_cast<const double*>(w_p), static_cast<const double*>(dy), static_cast<double*>(dx),
                                      static_cast<double*>(dw), static_cast<double*>(db));
  }
  const auto *mean = static_cast<const float*>(mean_p), *rstd = static_cast<const float*>(rstd_p), *w = static_cast<const float*>(w_p);
  const Block sums_block = queue.scratch(static_cast<std::size_t>(s.n * s.c) * sizeof(GradSums));
  auto* sums = sums_block.as<GradSums>();
  const std::int64_t parts = grad_sums(queue, s, x, mean, dy, sums);
  if (dw || db) give_weight(s, sums, parts, rstd, static_cast<float*>(dw), static_cast<float*>(db), accumulate);
  if (!dx) return;
  const std::int64_t count = by_columns(s) ? s.c : s.n * s.c;
  const Block terms_block = queue.scratch(static_cast<std::size_t>(count) * (sizeof(GradTerms) + 3 * sizeof(float)));
  auto* terms = terms_block.as<GradTerms>();
  grad_terms(s, fixed, sums, parts, rstd, w, terms);
  if (!by_columns(s)) {
    return parallel_for(s.n * s.c, row_grain(s.l), [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(GradSegments)(s, x, mean, dy, terms, dx, begin, end);
    });
  }
  float *p = reinterpret_cast<float*>(terms + count), *q = p + count, *r = q + count;
  for (std::int64_t i = 0; i < s.c; ++i) p[i] = terms[i].p, q[i] = terms[i].q, r[i] = terms[i].r;
  parallel_for(s.n, row_grain(s.c), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(GradColumns)
    (s.dtype, row_of(x, s.dtype, begin, s.c), mean, row_of(dy, s.dtype, begin, s.c), p, q, r, row_of(dx, s.dtype, begin, s.c), end - begin, s.c);
  });
}

}  // namespace mezzo::kernels
#endif
