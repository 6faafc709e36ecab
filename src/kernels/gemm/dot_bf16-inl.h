// dot_bf16-inl.h - the native dot product of bf16 pairs, which Highway 1.0.3 has no operation for. On AVX-512 only, and called only where
// active_isa() is avx512_bf16.
#if defined(MEZZO_KERNELS_GEMM_DOT_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_GEMM_DOT_BF16_INL_H_
#undef MEZZO_KERNELS_GEMM_DOT_BF16_INL_H_
#else
#define MEZZO_KERNELS_GEMM_DOT_BF16_INL_H_
#endif

#include <hwy/highway.h>

// For every function between the dot product and the loop around it: one that lacks it cannot inline one that has it.
#undef MEZZO_BF16_ATTR
#if HWY_TARGET == HWY_AVX3
#define MEZZO_BF16_ATTR __attribute__((target(HWY_TARGET_STR ",avx512bf16")))
#else
#define MEZZO_BF16_ATTR
#endif

#if HWY_TARGET == HWY_AVX3
HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// sum + a0 b0 + a1 b1 in each lane, whose bits are those of a pair of bf16 (VDPBF16PS): denormals are taken for zero and flushed, each sum is
/// rounded to nearest even.
template <class V> MEZZO_BF16_ATTR HWY_INLINE V DotBf16(V sum, V a, V b) { return V{_mm512_dpbf16_ps(sum.raw, (__m512bh)a.raw, (__m512bh)b.raw)}; }

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
#endif
