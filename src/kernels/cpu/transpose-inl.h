// transpose-inl.h - four rows side by side, for packing: per target, included once for each by files that use Highway's foreach_target.
#if defined(MEZZO_KERNELS_CPU_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_TRANSPOSE_INL_H_
#undef MEZZO_KERNELS_CPU_TRANSPOSE_INL_H_
#else
#define MEZZO_KERNELS_CPU_TRANSPOSE_INL_H_
#endif

#include <cstddef>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
#if HWY_TARGET != HWY_SCALAR
namespace hn = hwy::HWY_NAMESPACE;

/// The 128-bit blocks of v, four rows of `out` apart.
template <class D> HWY_INLINE void StoreBlocks(D d, hn::Vec<D> v, float* out, std::size_t width) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    hn::StoreU(v, d, out);
  } else {
    const hn::Half<D> half;
    StoreBlocks(half, hn::LowerHalf(half, v), out, width);
    StoreBlocks(half, hn::UpperHalf(half, v), out + hn::MaxLanes(half) * width, width);
  }
}

/// out[p width + 0..3] = lane p of r0, r1, r2, r3, for every lane: a 4 x 4 transpose in each 128-bit block.
template <class D> HWY_INLINE void TransposeRows(D d, hn::Vec<D> r0, hn::Vec<D> r1, hn::Vec<D> r2, hn::Vec<D> r3, float* out, std::size_t width) {
  const hn::Repartition<std::uint64_t, D> d2;
  const auto lo01 = hn::BitCast(d2, hn::InterleaveLower(d, r0, r1)), hi01 = hn::BitCast(d2, hn::InterleaveUpper(d, r0, r1));
  const auto lo23 = hn::BitCast(d2, hn::InterleaveLower(d, r2, r3)), hi23 = hn::BitCast(d2, hn::InterleaveUpper(d, r2, r3));
  StoreBlocks(d, hn::BitCast(d, hn::InterleaveLower(d2, lo01, lo23)), out, width);
  StoreBlocks(d, hn::BitCast(d, hn::InterleaveUpper(d2, lo01, lo23)), out + width, width);
  StoreBlocks(d, hn::BitCast(d, hn::InterleaveLower(d2, hi01, hi23)), out + 2 * width, width);
  StoreBlocks(d, hn::BitCast(d, hn::InterleaveUpper(d2, hi01, hi23)), out + 3 * width, width);
}
#endif
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
