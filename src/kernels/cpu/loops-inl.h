// loops-inl.h - element-wise loops over contiguous elements: whole vectors, then one masked tail that computes the same bits.
#if defined(MEZZO_KERNELS_CPU_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_LOOPS_INL_H_
#undef MEZZO_KERNELS_CPU_LOOPS_INL_H_
#else
#define MEZZO_KERNELS_CPU_LOOPS_INL_H_
#endif

#include <cstdint>

#include "kernels/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// An operand of Map: elements of T ...
template <class T> struct Elements {
  const T* p;
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t i) const { return LoadF32(d, p + i); }
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t i, std::int64_t n) const {
    return LoadF32(d, p + i, static_cast<std::size_t>(n));
  }
};
/// ... or one number.
struct Constant {
  float value;
  template <class D> HWY_INLINE hn::VFromD<D> load(D d, std::int64_t, std::int64_t = 0) const { return hn::Set(d, value); }
};

/// y[i] = f(d, x[i]...), i < n: f32 vectors between loads and a store that convert. y may be one of the x.
template <class T, class F, class... X> HWY_INLINE void Map(std::int64_t n, T* y, F f, X... x) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) StoreF32(f(d, x.load(d, i)...), d, y + i);
  if (i < n) StoreF32(f(d, x.load(d, i, n - i)...), d, y + i, static_cast<std::size_t>(n - i));
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
