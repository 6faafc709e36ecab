// element_loss.cpp - losses of one element and its target, and their slopes, in one pass. f32, f16, bf16: arithmetic in f32, losses f32, gradients
// rounded once. f64: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/element_loss.cpp"
#include <hwy/foreach_target.h>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/enumerate.h"
#include "kernels/ref/loss.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

/// log(1 - x) for x <= 1: the rounding of 1 - x is put back to first order, so that small x keep their digits.
template <class D, class V> HWY_INLINE V LogOfRest(D d, V x) {
  const V one = hn::Set(d, 1.0f), rest = hn::Sub(one, x), lost = hn::Add(hn::Sub(rest, one), x);
  return hn::Sub(Log(d, rest), hn::Div(lost, hn::IfThenElse(hn::Eq(rest, hn::Zero(d)), one, rest)));
}

template <class D, class V> HWY_INLINE V SignOf(D d, V x) {  // a NaN stays
  const V one = hn::Set(d, 1.0f), zero = hn::Zero(d);
  return hn::IfThenElse(hn::Gt(x, zero), one, hn::IfThenElse(hn::Lt(x, zero), hn::Neg(one), x));
}

template <Loss loss, class D, class V> HWY_INLINE V LossOf(D d, V x, V t, V beta) {
  const V diff = hn::Sub(x, t), size = hn::Abs(diff), half = hn::Set(d, 0.5f);
  if constexpr (loss == Loss::squared) return hn::Mul(diff, diff);
  else if constexpr (loss == Loss::absolute) return size;
  else if constexpr (loss == Loss::smooth_l1) {
    return hn::IfThenElse(hn::Lt(size, beta), hn::Div(hn::Mul(hn::Mul(diff, diff), half), beta), hn::NegMulAdd(half, beta, size));
  } else if constexpr (loss == Loss::huber) {
    return hn::IfThenElse(hn::Lt(size, beta), hn::Mul(hn::Mul(diff, diff), half), hn::Mul(beta, hn::NegMulAdd(half, beta, size)));
  } else if constexpr (loss == Loss::kl) {
    return hn::IfThenZeroElse(hn::Eq(t, hn::Zero(d)), hn::Mul(t, hn::Sub(Log(d, t), x)));
  } else if constexpr (loss == Loss::kl_log) return hn::Mul(Exp(d, t), hn::Sub(t, x));
  else if constexpr (loss == Loss::binary) {
    constexpr auto kLeast = static_cast<float>(ref::kLeastLog);
    const V yes = AtLeast(d, Log(d, x), kLeast), no = AtLeast(d, LogOfRest(d, x), kLeast);
    return hn::Neg(hn::MulAdd(t, yes, hn::Mul(hn::Sub(hn::Set(d, 1.0f), t), no)));
  } else {
    const V share = hn::IfThenElse(hn::Gt(x, hn::Zero(d)), hn::Sub(hn::Set(d, 1.0f), t), hn::Neg(t));
    return hn::MulAdd(share, x, Softplus(d, hn::Neg(hn::Abs(x))));
  }
}

template <class V> struct Slopes { V x, t; };
template <Loss loss, class D, class V> HWY_INLINE Slopes<V> SlopesOf(D d, V x, V t, V beta) {
  const V diff = hn::Sub(x, t), one = hn::Set(d, 1.0f);
  const auto both_ways = [](V slope) MEZZO_BODY { return Slopes<V>{slope, hn::Neg(slope)}; };
  if constexpr (loss == Loss::squared) return both_ways(hn::Add(diff, diff));
  else if constexpr (loss == Loss::absolute) return both_ways(SignOf(d, diff));
  else if constexpr (loss == Loss::smooth_l1) {
    return both_ways(hn::IfThenElse(hn::Lt(hn::Abs(diff), beta), hn::Div(diff, beta), SignOf(d, diff)));
  } else if constexpr (loss == Loss::huber) {
    return both_ways(hn::IfThenElse(hn::Lt(hn::Abs(diff), beta), diff, hn::Mul(SignOf(d, diff), beta)));
  } else if constexpr (loss == Loss::kl) return {hn::Neg(t), hn::Add(hn::Sub(Log(d, t), x), one)};
  else if constexpr (loss == Loss::kl_log) {
    const V p = Exp(d, t);
    return {hn::Neg(p), hn::Mul(p, hn::Add(hn::Sub(t, x), one))};
  } else if constexpr (loss == Loss::binary) {
    constexpr auto kLeast = static_cast<float>(ref::kLeastLog);
    const V spread = hn::Max(hn::Mul(x, hn::Sub(one, x)), hn::Set(d, 1e-12f));
    return {hn::Div(diff, spread), hn::Sub(AtLeast(d, LogOfRest(d, x), kLeast), AtLeast(d, Log(d, x), kLeast))};
  } else {
    const auto p = LogisticOf(d, x);
    return {hn::NegMulAdd(t, p.rest, hn::Mul(p.s, hn::Sub(one, t))), hn::Neg(x)};
  }
}

template <Loss loss, class T> void LossLoop(const void* x_p, const void* t_p, float* losses, std::int64_t n, float beta_value) {
  const hn::ScalableTag<float> d;
  const auto *x = static_cast<const T*>(x_p), *t = static_cast<const T*>(t_p);
  const auto beta = hn::Set(d, beta_value);
  ForEachVector(d, static_cast<std::size_t>(n), [&](std::size_t i, auto access) MEZZO_BODY {
    access.Store(LossOf<loss>(d, access.Load(d, x + i), access.Load(d, t + i), beta), d, losses + i);
  });
}

template <Loss loss, class T> void LossBackwardLoop(const void* x_p, const void* t_p, const float* g, bool each, float scale_value, void* dx_p,
                                                    void* dt_p, std::int64_t n, float beta_value) {
  const hn::ScalableTag<float> d;
  const auto *x = static_cast<const T*>(x_p), *t = static_cast<const T*>(t_p);
  auto *dx = static_cast<T*>(dx_p), *dt = static_cast<T*>(dt_p);
  const auto beta = hn::Set(d, beta_value), scale = hn::Set(d, scale_value), shared = hn::Set(d, *g);
  ForEachVector(d, static_cast<std::size_t>(n), [&](std::size_t i, auto access) MEZZO_BODY {
    const auto upstream = hn::Mul(each ? access.Load(d, g + i) : shared, scale);
    const auto slopes = SlopesOf<loss>(d, access.Load(d, x + i), access.Load(d, t + i), beta);
    if (dx) access.Store(hn::Mul(slopes.x, upstream), d, dx + i);
    if (dt) access.Store(hn::Mul(slopes.t, upstream), d, dt + i);
  });
}

using LossSpan = void (*)(const void*, const void*, float*, std::int64_t, float);
LossSpan PickLoss(Loss loss, Dtype t) {
  return with_constant(loss, [&](auto which) -> LossSpan {
    return t == f32 ? LossLoop<which(), float> : t == f16 ? LossLoop<which(), f16_t> : LossLoop<which(), bf16_t>;
  });
}
using LossBackwardSpan = void (*)(const void*, const void*, const float*, bool, float, void*, void*, std::int64_t, float);
LossBackwardSpan PickLossBackward(Loss loss, Dtype t) {
  return with_constant(loss, [&](auto which) -> LossBackwardSpan {
    return t == f32 ? LossBackwardLoop<which(), float> : t == f16 ? LossBackwardLoop<which(), f16_t> : LossBackwardLoop<which(), bf16_t>;
  });
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickLoss);
HWY_EXPORT(PickLossBackward);

}  // namespace

void loss(Queue&, Loss which, Dtype dtype, const void* x, const void* t, void* losses, std::int64_t n, double beta) {
  if (dtype == f64) {
    return with_constant(which, [&](auto constant) {
      parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
        const auto *a = static_cast<const double*>(x), *b = static_cast<const double*>(t);
        for (std::int64_t i = begin; i < end; ++i) static_cast<double*>(losses)[i] = ref::element_loss<constant()>(a[i], b[i], beta);
      });
    });
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickLoss)(which, dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        span(at(x, begin, bytes), at(t, begin, bytes), static_cast<float*>(losses) + begin, end - begin, static_cast<float>(beta));
      },
      kAlign);
}

void loss_backward(Queue&, Loss which, Dtype dtype, const void* x, const void* t, const void* g, std::int64_t g_stride, double scale, void* dx,
                   void* dt, std::int64_t n, double beta) {
  if (n == 0) return;
  if (dtype == f64) {
    return with_constant(which, [&](auto constant) {
      parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
        const auto *a = static_cast<const double*>(x), *b = static_cast<const double*>(t), *upstream = static_cast<const double*>(g);
        for (std::int64_t i = begin; i < end; ++i) {
          const auto slopes = ref::element_loss_backward<constant()>(a[i], b[i], beta);
          const double factor = upstream[i * g_stride] * scale;
          if (dx) static_cast<double*>(dx)[i] = slopes.x * factor;
          if (dt) static_cast<double*>(dt)[i] = slopes.t * factor;
        }
      });
    });
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickLossBackward)(which, dtype);
  const std::size_t bytes = size_of(dtype);
  const auto from = [&](void* p, std::int64_t i) { return p ? at(p, i, bytes) : nullptr; };
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        span(at(x, begin, bytes), at(t, begin, bytes), static_cast<const float*>(g) + begin * g_stride, g_stride != 0, static_cast<float>(scale),
             from(dx, begin), from(dt, begin), end - begin, static_cast<float>(beta));
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
