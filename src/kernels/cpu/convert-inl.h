// convert-inl.h - vectors of f32 from and to memory of f32, f16 or bf16: one rounding to nearest even on store, on every target.
//
// LoadF32(d, p)        lanes of p as f32           StoreF32(v, d, p)        rounds v to T and stores it
// LoadF32(d, p, n)     the first n, others zero    StoreF32(v, d, p, n)     the first n; memory past them is not touched
#if defined(MEZZO_KERNELS_CPU_CONVERT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_CONVERT_INL_H_
#undef MEZZO_KERNELS_CPU_CONVERT_INL_H_
#else
#define MEZZO_KERNELS_CPU_CONVERT_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <hwy/highway.h>

#include <mezzo/dtype.h>

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// F16C comes with every target from AVX2 on.
#undef MEZZO_HAS_F16C
#define MEZZO_HAS_F16C (HWY_TARGET <= HWY_AVX2)

// ---- bits to f32 and back, in registers -----------------------------------------------------------

/// bf16 bits (in u32 lanes) of f32 lanes. Highway's own DemoteTo truncates.
template <class D, class V = hn::VFromD<D>> HWY_INLINE hn::VFromD<hn::RebindToUnsigned<D>> Bf16FromF32(D, V v) {
  const hn::RebindToUnsigned<D> du;
  const auto u = hn::BitCast(du, v);
  const auto high = hn::ShiftRight<16>(u);
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(u, hn::Set(du, 0x7fffu)), hn::And(high, hn::Set(du, 1u))));
  // The bias would carry a NaN of small payload into Inf, or one of large payload into -0.
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), hn::Or(high, hn::Set(du, 0x40u)), rounded);
}

template <class D, class VU> HWY_INLINE hn::VFromD<D> F32FromBf16(D d, VU bits) { return hn::BitCast(d, hn::ShiftLeft<16>(bits)); }

#if !MEZZO_HAS_F16C
template <class D, class V = hn::VFromD<D>> HWY_INLINE hn::VFromD<hn::RebindToUnsigned<D>> F16FromF32(D d, V v) {
  const hn::RebindToUnsigned<D> du;
  const auto u = hn::BitCast(du, v);
  const auto sign = hn::And(u, hn::Set(du, 0x80000000u));
  const auto a = hn::Xor(u, sign);
  // Normal results: re-bias the exponent (127 - 15 = 112) and round at bit 13; a carry into the exponent is right, up to 65520 -> Inf.
  const auto odd = hn::And(hn::ShiftRight<13>(a), hn::Set(du, 1u));
  const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(a, hn::Set(du, 0xfffu - (112u << 23))), odd));
  // Subnormal results (below 2^-14): one ulp of 0.5f is 2^-24, the spacing of f16 subnormals, so the addition rounds.
  const auto half = hn::Set(d, 0.5f);
  const auto subnormal = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, a), half)), hn::BitCast(du, half));
  const auto nan = hn::Or(hn::And(hn::ShiftRight<13>(a), hn::Set(du, 0x3ffu)), hn::Set(du, 0x7e00u));
  const auto abs = hn::BitCast(d, a);
  auto r = hn::IfThenElse(hn::RebindMask(du, hn::Lt(abs, hn::Set(d, 0x1p-14f))), subnormal, normal);
  r = hn::IfThenElse(hn::RebindMask(du, hn::Ge(abs, hn::Set(d, 65520.0f))), hn::Set(du, 0x7c00u), r);
  r = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), nan, r);
  return hn::Or(r, hn::ShiftRight<16>(sign));
}

template <class D, class VU> HWY_INLINE hn::VFromD<D> F32FromF16(D d, VU bits) {
  const hn::RebindToUnsigned<D> du;
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffu));
  const auto sign = hn::ShiftLeft<16>(hn::Xor(bits, magnitude));
  const auto shifted = hn::ShiftLeft<13>(magnitude);
  const auto finite = hn::BitCast(du, hn::Mul(hn::BitCast(d, shifted), hn::Set(d, 0x1p112f)));  // exact, subnormals too
  const auto quiet = hn::IfThenElseZero(hn::Gt(magnitude, hn::Set(du, 0x7c00u)), hn::Set(du, 0x400000u));
  const auto special = hn::Or(hn::Or(shifted, hn::Set(du, 0x7f800000u)), quiet);
  return hn::BitCast(d, hn::Or(hn::IfThenElse(hn::Gt(magnitude, hn::Set(du, 0x7bffu)), special, finite), sign));
}
#endif

/// u16 lanes that hold the bits of T (f16_t or bf16_t), as f32.
template <class T, class D, class V16> HWY_INLINE hn::VFromD<D> FromBits16(D d, V16 bits) {
  const hn::RebindToUnsigned<D> du;
  if constexpr (std::is_same_v<T, bf16_t>) {
    return F32FromBf16(d, hn::PromoteTo(du, bits));
  } else {
#if MEZZO_HAS_F16C
    return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#else
    return F32FromF16(d, hn::PromoteTo(du, bits));
#endif
  }
}

/// f32 lanes rounded to T (f16_t or bf16_t), as its bits in u16 lanes.
template <class T, class D, class V = hn::VFromD<D>> HWY_INLINE hn::VFromD<hn::Rebind<std::uint16_t, D>> ToBits16(D d, V v) {
  const hn::Rebind<std::uint16_t, D> d16;
  const hn::RebindToSigned<D> di;
  if constexpr (std::is_same_v<T, bf16_t>) {
    return hn::DemoteTo(d16, hn::BitCast(di, Bf16FromF32(d, v)));
  } else {
#if MEZZO_HAS_F16C
    return hn::BitCast(d16, hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));  // VCVTPS2PH, nearest even
#else
    return hn::DemoteTo(d16, hn::BitCast(di, F16FromF32(d, v)));
#endif
  }
}

// ---- memory ----------------------------------------------------------------------------------------

template <class D, class T> HWY_INLINE hn::VFromD<D> LoadF32(D d, const T* HWY_RESTRICT p) {
  if constexpr (std::is_same_v<T, float>) {
    return hn::LoadU(d, p);
  } else {
    return FromBits16<T>(d, hn::LoadU(hn::Rebind<std::uint16_t, D>(), &p->bits));
  }
}

template <class D, class T> HWY_INLINE void StoreF32(hn::VFromD<D> v, D d, T* HWY_RESTRICT p) {
  if constexpr (std::is_same_v<T, float>) {
    hn::StoreU(v, d, p);
  } else {
    hn::StoreU(ToBits16<T>(d, v), hn::Rebind<std::uint16_t, D>(), &p->bits);
  }
}

/// The first n < Lanes(d) elements; the other lanes are zero.
template <class D, class T> HWY_INLINE hn::VFromD<D> LoadF32(D d, const T* HWY_RESTRICT p, std::size_t n) {
  if constexpr (std::is_same_v<T, float> && HWY_TARGET <= HWY_AVX2) {
    return hn::MaskedLoad(hn::FirstN(d, n), d, p);
  } else if constexpr (HWY_TARGET <= HWY_AVX3) {
    const hn::Rebind<std::uint16_t, D> d16;
    return FromBits16<T>(d, hn::MaskedLoad(hn::FirstN(d16, n), d16, &p->bits));
  } else {  // no masked access to memory of this width
    alignas(64) T lanes[hn::MaxLanes(d)];
    std::memset(lanes, 0, sizeof(lanes));
    std::memcpy(lanes, p, n * sizeof(T));
    return LoadF32(d, lanes);
  }
}

template <class D, class T> HWY_INLINE void StoreF32(hn::VFromD<D> v, D d, T* HWY_RESTRICT p, std::size_t n) {
  if constexpr (std::is_same_v<T, float> && HWY_TARGET <= HWY_AVX2) {
    hn::BlendedStore(v, hn::FirstN(d, n), d, p);
  } else if constexpr (HWY_TARGET <= HWY_AVX3) {
    const hn::Rebind<std::uint16_t, D> d16;
    hn::BlendedStore(ToBits16<T>(d, v), hn::FirstN(d16, n), d16, &p->bits);
  } else {
    alignas(64) T lanes[hn::MaxLanes(d)];
    StoreF32(v, d, lanes);
    std::memcpy(p, lanes, n * sizeof(T));
  }
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
