// gradient-inl.h - how a gradient is read: rounded to the 16-bit format it stands for, then scaled.
#if defined(MEZZO_KERNELS_CPU_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_GRADIENT_INL_H_
#undef MEZZO_KERNELS_CPU_GRADIENT_INL_H_
#else
#define MEZZO_KERNELS_CPU_GRADIENT_INL_H_
#endif

#include "kernels/cpu/row-inl.h"
#include "kernels/ref/gradient.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// g of type G, whose elements are rounded to Round on load if that is shorter than G.
template <class G, class Round> struct Gradient {
  const G* g;
  ref::ScaleFactors scale;

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    const auto v = access.Load(d, g + i);
    if constexpr (sizeof(Round) < sizeof(G)) return FromBits16<Round>(d, ToBits16<Round>(d, v));
    else return v;
  }
  template <class D, class V> HWY_INLINE V Scale(D d, V v) const { return hn::Mul(hn::Mul(v, hn::Set(d, scale.first)), hn::Set(d, scale.second)); }
};

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
