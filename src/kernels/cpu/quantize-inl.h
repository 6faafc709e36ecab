// quantize-inl.h - ref/quantize.h on vectors: random bits of a tile, rounding by chance, the dynamic 8-bit map, and raw 16 and 8 bits in memory.
#if defined(MEZZO_KERNELS_CPU_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_QUANTIZE_INL_H_
#undef MEZZO_KERNELS_CPU_QUANTIZE_INL_H_
#else
#define MEZZO_KERNELS_CPU_QUANTIZE_INL_H_
#endif

#include "kernels/cpu/philox-inl.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/ref/quantize.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D> using U32 = hn::VFromD<hn::RebindToUnsigned<D>>;

// ---- u32 lanes to and from memory of 16 or 8 bits ---------------------------------------------------------

/// The lower bits of u32 lanes; they fit into T.
template <class D, class T> HWY_INLINE void StoreBits(Whole, D, U32<D> v, T* p) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<T, D> narrow;
  hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(di, v)), narrow, p);
}
template <class D, class T> HWY_INLINE void StoreBits(Tail tail, D d, U32<D> v, T* p) {
  alignas(64) T lanes[hn::MaxLanes(d)];
  StoreBits(Whole{}, d, v, lanes);
  std::memcpy(p, lanes, tail.n * sizeof(T));
}
template <class D, class T> HWY_INLINE U32<D> LoadBits(Whole, D, const T* p) {
  return hn::PromoteTo(hn::RebindToUnsigned<D>(), hn::LoadU(hn::Rebind<T, D>(), p));
}
template <class D, class T> HWY_INLINE U32<D> LoadBits(Tail tail, D d, const T* p) {
  alignas(64) T lanes[hn::MaxLanes(d)] = {};
  std::memcpy(lanes, p, tail.n * sizeof(T));
  return LoadBits(Whole{}, d, lanes);
}

// ---- random bits ------------------------------------------------------------------------------------------

inline constexpr std::size_t kTile = kQuantBlock;  // elements whose random bits and moments wait in L1

/// ref::random_bits of the elements of a tile, for each use of an Update that draws any.
class TileBits {
 public:
  enum Use : int { weight, first_moment, second_moment };
  TileBits(std::uint64_t seed, std::uint64_t stream, bool of_weight, bool of_m, bool of_v)
      : seed_(seed), stream_(stream), draws_{of_weight, of_m, of_v} {}

  HWY_INLINE void Draw(std::size_t tile) {
    constexpr std::int64_t kBlocks = kTile / 8;
    static_assert(kBlocks % kPhiloxBlocks == 0);
    for (int use = 0; use < 3; ++use)
      if (draws_[use])
        PhiloxWords(seed_, tile * static_cast<std::uint64_t>(kBlocks), words_[use], kBlocks, stream_ + static_cast<std::uint64_t>(use));
  }
  /// In the lower half of u32 lanes.
  template <class D> HWY_INLINE U32<D> Of(Use use, D d, std::size_t element) const {
    return LoadBits(Whole{}, d, reinterpret_cast<const std::uint16_t*>(words_[use]) + element % kTile);
  }
  /// As numbers in [0, 1).
  template <class D> HWY_INLINE hn::VFromD<D> Uniform(Use use, D d, std::size_t element) const {
    return hn::Mul(hn::ConvertTo(d, hn::BitCast(hn::RebindToSigned<D>(), Of(use, d, element))), hn::Set(d, 0x1p-16f));
  }

 private:
  HWY_ALIGN std::uint64_t words_[3][kTile / 4 + 8];  // a vector that begins in the tile may end behind it
  std::uint64_t seed_, stream_;
  bool draws_[3];
};

/// ref::round_stochastic, as bits.
template <class D> HWY_INLINE U32<D> RoundStochastic(D d, hn::VFromD<D> v, U32<D> random) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::BitCast(du, v), random));
  const auto beyond = hn::Gt(hn::BitCast(di, hn::Abs(v)), hn::Set(di, 0x7f7effff));
  if (HWY_LIKELY(hn::AllFalse(di, beyond))) return rounded;
  return hn::IfThenElse(hn::RebindMask(du, beyond), Bf16FromF32(d, v), rounded);
}

// ---- the dynamic 8-bit map ----------------------------------------------------------------------------------

/// table[index], index in [0, 8).
template <class D> HWY_INLINE hn::VFromD<D> Lookup8(D d, const std::array<float, 16>& table, hn::VFromD<hn::RebindToSigned<D>> index) {
  if constexpr (hn::MaxLanes(d) < 8) {
    return hn::GatherIndex(d, table.data(), index);
  } else {
    static_assert(hn::MaxLanes(d) <= 16);
    return hn::TableLookupLanes(hn::LoadU(d, table.data()), hn::IndicesFromVec(d, index));
  }
}

/// ref::dynamic_value of codes of kB + 1 bits.
template <int kB, class D> HWY_INLINE hn::VFromD<D> DynamicValue(D d, U32<D> code) {
  const hn::RebindToSigned<D> di;
  constexpr const auto& map = ref::kDynamicMap<kB>;
  const auto number = hn::ConvertTo(d, hn::BitCast(di, code));
  const auto power = hn::And(hn::BitCast(di, number), hn::Set(di, 0x7f800000));  // a code as an f32 has its leading bit in the exponent
  const auto l = hn::And(hn::Sub(hn::ShiftRight<23>(power), hn::Set(di, 127)), hn::Set(di, 7));
  const auto k = hn::Add(hn::Sub(number, hn::BitCast(d, power)), hn::Set(d, 1.0f));
  const auto value = hn::Add(Lookup8(d, map.first, l), hn::Mul(Lookup8(d, map.step, l), k));
  return hn::IfThenElseZero(hn::Gt(number, hn::Zero(d)), value);
}

/// ref::dynamic_code of numbers in [0, 1].
template <int kB, class D> HWY_INLINE U32<D> DynamicCode(D d, hn::VFromD<D> x, hn::VFromD<D> random) {
  const hn::RebindToSigned<D> di;
  constexpr const auto& map = ref::kDynamicMap<kB>;
  // The decade. The bits of x as a number are a log2 in pieces, at most 0.0861 too small: floor(log10 + kB + 1) from it is right or one too small,
  // and a comparison decides. Taken 0.001 lower, rounding it cannot make it too large.
  constexpr float kLog = 0.30103f / (1 << 23), kOffset = kB + 1 - 0.001f - 127 * 0.30103f;
  const auto estimate = hn::MulAdd(hn::ConvertTo(d, hn::BitCast(di, x)), hn::Set(d, kLog), hn::Set(d, kOffset));
  const auto at_least = hn::ConvertTo(di, hn::Min(hn::Max(estimate, hn::Zero(d)), hn::Set(d, static_cast<float>(kB))));
  const auto above = hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(x, Lookup8(d, map.ends, at_least))));
  const auto l = hn::Min(hn::Sub(at_least, above), hn::Set(di, kB));
  const auto c = hn::Add(hn::Mul(Lookup8(d, map.slope, l), x), hn::Add(Lookup8(d, map.shift, l), random));
  const auto code = hn::ConvertTo(di, hn::Min(hn::Max(c, hn::Zero(d)), hn::Set(d, static_cast<float>((2 << kB) - 1))));
  const hn::RebindToUnsigned<D> du;
  if constexpr (kB < 7) return hn::BitCast(du, code);
  else return hn::BitCast(du, hn::Max(code, hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, hn::Zero(d))), hn::Set(di, 1))));
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
