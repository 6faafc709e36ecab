// swiglu.cpp - y = silu(gate) up and its gradients in one pass. f32, f16, bf16: arithmetic in f32, one rounding on store. f64: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cpp"
#include <hwy/foreach_target.h>

#include "dtype/dispatch.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/cpu/unary-inl.h"
#include "kernels/ref/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

struct SiluTimes {
  template <class D, class V> HWY_INLINE V operator()(D d, V gate, V up) const { return hn::Mul(Silu(d, gate), up); }
};

template <class T> void SwigluLoop(const void* gate, const void* up, void* y, std::int64_t n) {
  Map(n, static_cast<T*>(y), SiluTimes(), Elements<T>{static_cast<const T*>(gate)}, Elements<T>{static_cast<const T*>(up)});
}

// dgate = dy up silu'(gate), dup = dy silu(gate), of one sigmoid.
template <class D, class V> HWY_INLINE void SwigluGradient(D d, V gate, V up, V dy, V& dgate, V& dup) {
  const auto p = LogisticOf(d, gate);
  dgate = hn::Mul(hn::Mul(dy, up), SiluSlope(d, gate, p));
  dup = hn::Mul(dy, hn::Mul(gate, p.s));
}

template <class T> void SwigluBackwardLoop(const void* gate_p, const void* up_p, const void* dy_p, void* dgate_p, void* dup_p, std::int64_t n) {
  const hn::ScalableTag<float> d;
  using V = hn::VFromD<decltype(d)>;
  const auto *gate = static_cast<const T*>(gate_p), *up = static_cast<const T*>(up_p), *dy = static_cast<const T*>(dy_p);
  auto *dgate = static_cast<T*>(dgate_p), *dup = static_cast<T*>(dup_p);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    V a, b;
    SwigluGradient(d, LoadF32(d, gate + i), LoadF32(d, up + i), LoadF32(d, dy + i), a, b);
    StoreF32(a, d, dgate + i);
    StoreF32(b, d, dup + i);
  }
  if (i < n) {
    V a, b;
    const auto left = static_cast<std::size_t>(n - i);
    SwigluGradient(d, LoadF32(d, gate + i, left), LoadF32(d, up + i, left), LoadF32(d, dy + i, left), a, b);
    StoreF32(a, d, dgate + i, left);
    StoreF32(b, d, dup + i, left);
  }
}

using SwigluSpan = void (*)(const void*, const void*, void*, std::int64_t);
SwigluSpan PickSwiglu(Dtype t) { return t == f32 ? SwigluLoop<float> : t == f16 ? SwigluLoop<f16_t> : SwigluLoop<bf16_t>; }

using SwigluBackwardSpan = void (*)(const void*, const void*, const void*, void*, void*, std::int64_t);
SwigluBackwardSpan PickSwigluBackward(Dtype t) {
  return t == f32 ? SwigluBackwardLoop<float> : t == f16 ? SwigluBackwardLoop<f16_t> : SwigluBackwardLoop<bf16_t>;
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickSwiglu);
HWY_EXPORT(PickSwigluBackward);

}  // namespace

void swiglu(Queue&, Dtype dtype, const void* gate, const void* up, void* y, std::int64_t n) {
  if (dtype == f64) {
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
      const auto *g = static_cast<const double*>(gate), *u = static_cast<const double*>(up);
      for (std::int64_t i = begin; i < end; ++i) static_cast<double*>(y)[i] = ref::swiglu(g[i], u[i]);
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickSwiglu)(dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain, [&](std::int64_t begin, std::int64_t end) { span(at(gate, begin, bytes), at(up, begin, bytes), at(y, begin, bytes), end - begin); },
      kAlign);
}

void swiglu_backward(Queue&, Dtype dtype, const void* gate, const void* up, const void* dy, void* dgate, void* dup, std::int64_t n) {
  if (dtype == f64) {
    parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
      const auto *g = static_cast<const double*>(gate), *u = static_cast<const double*>(up), *dout = static_cast<const double*>(dy);
      for (std::int64_t i = begin; i < end; ++i) {
        const double d = dout[i], s = ref::unary<Unary::silu>(g[i]);
        static_cast<double*>(dgate)[i] = ref::unary_backward<Unary::silu>(g[i], d * u[i]);
        static_cast<double*>(dup)[i] = d * s;
      }
    });
    return;
  }
  const auto span = HWY_DYNAMIC_DISPATCH(PickSwigluBackward)(dtype);
  const std::size_t bytes = size_of(dtype);
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        span(at(gate, begin, bytes), at(up, begin, bytes), at(dy, begin, bytes), at(dgate, begin, bytes), at(dup, begin, bytes), end - begin);
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
