// softmax.cpp - softmax and log_softmax over rows, forward and backward. Storage T, arithmetic f32, one rounding on store.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/softmax-inl.h"
#include "kernels/kernels.h"
#include "kernels/ref/softmax.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// `exponentials` (c, f32) keeps the numerators until their sum is known; y itself where it is f32.
template <class From, class To> void SoftmaxRow(const From* x, To* y, std::size_t c, float* exponentials) {
  const hn::ScalableTag<float> d;
  if constexpr (std::is_same_v<To, float>) exponentials = y;
  const float max = RowMax(d, x, c);
  const float sum = SumExp(d, x, max, c, [&](std::size_t i, auto e, auto access) MEZZO_BODY { access.Store(e, d, exponentials + i); });
  const auto factor = hn::Set(d, 1.0f / sum);
  ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY { access.Store(hn::Mul(access.Load(d, exponentials + i), factor), d, y + i); });
}

template <class From, class To> void LogSoftmaxRow(const From* x, To* y, std::size_t c) {
  const hn::ScalableTag<float> d;
  const float max = RowMax(d, x, c);
  const auto shift = hn::Set(d, max), log_sum = hn::Set(d, LogOf(SumExp(d, x, max, c)));
  ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY {  // (x - max) first: exact where it matters, near the maximum
    access.Store(hn::Sub(hn::Sub(access.Load(d, x + i), shift), log_sum), d, y + i);
  });
}

template <class From, class To> void SoftmaxBackwardRow(bool log, const From* y, const From* dy, To* dx, std::size_t c) {
  const hn::ScalableTag<float> d;
  if (log) {
    const auto sum = hn::Set(d, static_cast<float>(Sum(d, c, [&](std::size_t i, auto access) MEZZO_BODY { return access.Load(d, dy + i); })));
    ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
      access.Store(hn::NegMulAdd(ExpBelowZero(d, access.Load(d, y + i)), sum, access.Load(d, dy + i)), d, dx + i);
    });
  } else {
    const auto sum = hn::Set(
        d,
        static_cast<float>(Sum(d, c, [&](std::size_t i, auto access) MEZZO_BODY { return hn::Mul(access.Load(d, y + i), access.Load(d, dy + i)); })));
    ForEachVector(d, c, [&](std::size_t i, auto access) MEZZO_BODY {
      access.Store(hn::Mul(access.Load(d, y + i), hn::Sub(access.Load(d, dy + i), sum)), d, dx + i);
    });
  }
}

// Rows [0, rows) of x and y (rows, c); exponentials (c).
void SoftmaxRows(bool log, Dtype from, Dtype to, const void* x, void* y, std::int64_t rows, std::int64_t c, float* exponentials) {
  dispatch_low_or_f32(from, "softmax", [&]<class From>() {
    dispatch_low_or_f32(to, "softmax", [&]<class To>() {
      for (std::int64_t r = 0; r < rows; ++r) {
        const From* row = static_cast<const From*>(x) + r * c;
        To* out = static_cast<To*>(y) + r * c;
        if (log) LogSoftmaxRow(row, out, c);
        else SoftmaxRow(row, out, c, exponentials);
      }
    });
  });
}

void SoftmaxBackwardRows(bool log, Dtype from, Dtype to, const void* y, const void* dy, void* dx, std::int64_t rows, std::int64_t c) {
  dispatch_low_or_f32(from, "softmax_backward", [&]<class From>() {
    dispatch_low_or_f32(to, "softmax_backward", [&]<class To>() {
      for (std::int64_t r = 0; r < rows; ++r)
        SoftmaxBackwardRow(log, static_cast<const From*>(y) + r * c, static_cast<const From*>(dy) + r * c, static_cast<To*>(dx) + r * c, c);
    });
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(SoftmaxRows);
HWY_EXPORT(SoftmaxBackwardRows);

void softmax(Queue& queue, bool log, Dtype from, Dtype to, const void* x, void* y, std::int64_t rows, std::int64_t c) {
  if (c == 0) return;
  if (from == f64) {
    MEZZO_CHECK(to == f64);
    return parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) ref::softmax(log, static_cast<const double*>(x) + r * c, static_cast<double*>(y) + r * c, c);
    });
  }
  parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
    const Block exponentials = queue.scratch(log || to == f32 ? 0 : c * sizeof(float));
    HWY_DYNAMIC_DISPATCH(SoftmaxRows)
    (log, from, to, row_of(x, from, begin, c), row_of(y, to, begin, c), end - begin, c, exponentials.as<float>());
  });
}

void softmax_backward(Queue&, bool log, Dtype from, Dtype to, const void* y, const void* dy, void* dx, std::int64_t rows, std::int64_t c) {
  if (c == 0) return;
  if (from == f64) {
    MEZZO_CHECK(to == f64);
    return parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        ref::softmax_backward(log, static_cast<const double*>(y) + r * c, static_cast<const double*>(dy) + r * c, static_cast<double*>(dx) + r * c,
                              c);
      }
    });
  }
  parallel_for(rows, row_grain(c), [&](std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(SoftmaxBackwardRows)
    (log, from, to, row_of(y, from, begin, c), row_of(dy, from, begin, c), row_of(dx, to, begin, c), end - begin, c);
  });
}

}  // namespace mezzo::kernels
#endif
