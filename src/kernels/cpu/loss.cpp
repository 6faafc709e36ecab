// loss.cpp - cross-entropy over rows of logits, forward and backward. Storage T, arithmetic and loss f32, one rounding on store.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/loss.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstring>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/softmax-inl.h"
#include "kernels/kernels.h"
#include "kernels/ref/loss.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

template <class T> ref::CrossEntropy<float> CrossEntropyRow(const T* x, std::int64_t target, std::size_t v, float smoothing) {
  const hn::ScalableTag<float> d;
  const float max = RowMax(d, x, v);
  const float log_sum = LogOf(SumExp(d, x, max, v));
  float picked = static_cast<float>(x[target]) - max;
  if (smoothing != 0) {
    const double total = Sum(d, v, [&](std::size_t i, auto access) MEZZO_BODY { return hn::Sub(access.Load(d, x + i), hn::Set(d, max)); });
    picked += smoothing * (static_cast<float>(total / static_cast<double>(v)) - picked);
  }
  return {log_sum - picked, log_sum + max};
}

// Rows [begin, end); logits (rows, ld).
void CrossEntropyRows(Dtype dtype, Dtype target_dtype, const void* logits, const void* target, float* loss, float* lse, std::int64_t begin,
                      std::int64_t end, std::int64_t v, std::int64_t ld, std::int64_t ignore_index, float smoothing) {
  dispatch_low_or_f32(dtype, "cross_entropy", [&]<class T>() {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t wanted = index_at(target_dtype, target, r);
      const bool ignored = wanted == ignore_index;
      const auto row =
          ignored && !lse ? ref::CrossEntropy<float>{} : CrossEntropyRow(static_cast<const T*>(logits) + r * ld, ignored ? 0 : wanted, v, smoothing);
      loss[r] = ignored ? 0.0f : row.loss;
      if (lse) lse[r] = row.lse;
    }
  });
}

template <class T, class To>
void CrossEntropyBackwardRow(const T* x, std::int64_t target, float lse, float scale, To* dx, std::size_t v, float smoothing) {
  const hn::ScalableTag<float> d;
  const float uniform = smoothing / static_cast<float>(v);  // of the target's mass, for every column
  const auto shift = hn::Set(d, lse), factor = hn::Set(d, scale), share = hn::Set(d, uniform);
  const float of_target = static_cast<float>(x[target]);  // before dx, which may be x, is written
  ForEachVector(d, v, [&](std::size_t i, auto access) MEZZO_BODY {
    access.Store(hn::Mul(hn::Sub(ExpBelowZero(d, hn::Sub(access.Load(d, x + i), shift)), share), factor), d, dx + i);
  });
  const float p = hn::GetLane(ExpBelowZero(d, hn::Set(d, of_target - lse)));
  dx[target] = static_cast<To>((p - (1.0f - smoothing) - uniform) * scale);
}

// Rows [begin, end); logits and dx (rows, ld).
void CrossEntropyBackwardRows(Dtype dtype, Dtype to, Dtype target_dtype, const void* logits, const void* target, const float* lse, const float* scale,
                              std::int64_t scale_stride, void* dx, std::int64_t begin, std::int64_t end, std::int64_t v, std::int64_t ld,
                              std::int64_t ignore_index, float smoothing) {
  dispatch_low_or_f32(dtype, "cross_entropy_backward", [&]<class T>() {
    dispatch_low_or_f32(to, "cross_entropy_backward", [&]<class To>() {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t wanted = index_at(target_dtype, target, r), written = wanted == ignore_index ? 0 : v;
        To* out = static_cast<To*>(dx) + r * ld;
        if (written)
          CrossEntropyBackwardRow(static_cast<const T*>(logits) + r * ld, wanted, lse[r], scale ? scale[r * scale_stride] : 1.0f, out, v, smoothing);
        std::memset(out + written, 0, (ld - written) * sizeof(To));  // +0 in every format
      }
    });
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(CrossEntropyRows);
HWY_EXPORT(CrossEntropyBackwardRows);

void cross_entropy(Queue&, Dtype dtype, Dtype target_dtype, const void* logits, const void* target, void* loss, void* lse, std::int64_t rows,
                   std::int64_t v, std::int64_t ignore_index, std::int64_t ld, double smoothing) {
  if (ld == 0) ld = v;
  parallel_for(rows, row_grain(v), [&](std::int64_t begin, std::int64_t end) {
    if (dtype != f64) {
      return HWY_DYNAMIC_DISPATCH(CrossEntropyRows)(dtype, target_dtype, logits, target, static_cast<float*>(loss), static_cast<float*>(lse), begin,
                                                    end, v, ld, ignore_index, static_cast<float>(smoothing));
    }
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t wanted = index_at(target_dtype, target, r);
      const bool ignored = wanted == ignore_index;
      const auto row = ref::cross_entropy(static_cast<const double*>(logits) + r * ld, ignored ? 0 : wanted, v, smoothing);
      static_cast<double*>(loss)[r] = ignored ? 0.0 : row.loss;
      if (lse) static_cast<double*>(lse)[r] = row.lse;
    }
  });
}

void cross_entropy_backward(Queue&, Dtype dtype, Dtype to, Dtype target_dtype, const void* logits, const void* target, const void* lse,
                            const void* scale, std::int64_t scale_stride, void* dx, std::int64_t rows, std::int64_t v, std::int64_t ignore_index,
                            std::int64_t ld, double smoothing) {
  if (ld == 0) ld = v;
  MEZZO_CHECK((dtype == f64) == (to == f64));
  parallel_for(rows, row_grain(ld), [&](std::int64_t begin, std::int64_t end) {
    if (dtype != f64) {
      return HWY_DYNAMIC_DISPATCH(CrossEntropyBackwardRows)(dtype, to, target_dtype, logits, target, static_cast<const float*>(lse),
                                                            static_cast<const float*>(scale), scale_stride, dx, begin, end, v, ld, ignore_index,
                                                            static_cast<float>(smoothing));
    }
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t wanted = index_at(target_dtype, target, r), written = wanted == ignore_index ? 0 : v;
      double* out = static_cast<double*>(dx) + r * ld;
      if (written) {
        ref::cross_entropy_backward(static_cast<const double*>(logits) + r * ld, wanted, static_cast<const double*>(lse)[r],
                                    scale ? static_cast<const double*>(scale)[r * scale_stride] : 1.0, out, v, smoothing);
      }
      std::fill(out + written, out + ld, 0.0);
    }
  });
}

}  // namespace mezzo::kernels
#endif
