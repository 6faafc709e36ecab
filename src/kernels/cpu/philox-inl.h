// philox-inl.h - core/philox.h on vectors: the same bits, several counters at a time.
#if defined(MEZZO_KERNELS_CPU_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_PHILOX_INL_H_
#undef MEZZO_KERNELS_CPU_PHILOX_INL_H_
#else
#define MEZZO_KERNELS_CPU_PHILOX_INL_H_
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "core/philox.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The 64-bit product of the lower halves of u64 lanes.
template <class V> HWY_INLINE V MulLower32(V a, V b) {
#if HWY_TARGET == HWY_SCALAR
  return V((a.raw & 0xffffffffu) * (b.raw & 0xffffffffu));
#else
  const hn::Repartition<std::uint32_t, hn::DFromV<V> > d32;
  return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, b));
#endif
}

/// Philox4x32 on u64 lanes: a counter a lane, each of its four words in the lower half of one. Upper halves are left as they come.
template <class V> struct PhiloxState {
  V c0, c1, c2, c3;

  template <class D> HWY_INLINE void round(D d, V k0, V k1) {
    const V p0 = MulLower32(hn::Set(d, std::uint64_t{0xD2511F53u}), c0), p1 = MulLower32(hn::Set(d, std::uint64_t{0xCD9E8D57u}), c2);
    c0 = hn::Xor3(hn::ShiftRight<32>(p1), c1, k0);
    c1 = p1;
    c2 = hn::Xor3(hn::ShiftRight<32>(p0), c3, k1);
    c3 = p0;
  }

  /// The words in order, counter after counter.
  template <class D> HWY_INLINE void store(D d, std::uint64_t* words) const {
    const V lower = hn::Set(d, std::uint64_t{0xffffffffu});
    hn::StoreInterleaved2(hn::Or(hn::And(c0, lower), hn::ShiftLeft<32>(c1)), hn::Or(hn::And(c2, lower), hn::ShiftLeft<32>(c3)), d, words);
  }
};

/// Counters that PhiloxWords makes at a time are a multiple of this on every target.
inline constexpr std::int64_t kPhiloxBlocks = 32;

/// words[2 i], words[2 i + 1]: the four 32-bit words of block(key, counter + i, stream), i < blocks, a multiple of kPhiloxBlocks. Four states at once
/// hide the latency of the products.
inline void PhiloxWords(std::uint64_t key, std::uint64_t counter, std::uint64_t* words, std::int64_t blocks, std::uint64_t stream = 0) {
  const hn::ScalableTag<std::uint64_t> d;
  using V = hn::VFromD<decltype(d)>;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V stream0 = hn::Set(d, stream & 0xffffffffu), stream1 = hn::Set(d, stream >> 32), iota = hn::Iota(d, 0);
  const V step0 = hn::Set(d, std::uint64_t{0x9E3779B9u}), step1 = hn::Set(d, std::uint64_t{0xBB67AE85u});
  for (std::int64_t i = 0; i < blocks; i += 4 * lanes, words += 8 * lanes) {
    const auto state = [&](std::int64_t k) HWY_ATTR {
      const V c = hn::Add(hn::Set(d, counter + static_cast<std::uint64_t>(i + k * lanes)), iota);
      return PhiloxState<V>{c, hn::ShiftRight<32>(c), stream0, stream1};
    };
    PhiloxState<V> a = state(0), b = state(1), e = state(2), f = state(3);
    V k0 = hn::Set(d, key & 0xffffffffu), k1 = hn::Set(d, key >> 32);  // carries go to the upper halves, which nobody reads
    for (int round = 0; round < 10; ++round, k0 = hn::Add(k0, step0), k1 = hn::Add(k1, step1)) {
      a.round(d, k0, k1);
      b.round(d, k0, k1);
      e.round(d, k0, k1);
      f.round(d, k0, k1);
    }
    a.store(d, words);
    b.store(d, words + 2 * lanes);
    e.store(d, words + 4 * lanes);
    f.store(d, words + 6 * lanes);
  }
}

/// c[0] + x (c[1] + x (...)) as core/philox.cpp evaluates it: products and sums rounded apart.
template <std::size_t N, class D, class V> HWY_INLINE V UnfusedPolynomial(D d, const std::array<double, N>& c, V x) {
  V y = hn::Set(d, c[N - 1]);
  for (std::size_t i = N - 1; i-- > 0;) y = hn::Add(hn::Mul(y, x), hn::Set(d, c[i]));
  return y;
}

/// philox::normal_pair of pairs of words (the first in the lower half of a u64 lane), operation by operation.
template <class D, class VU> HWY_INLINE void NormalPairs(D d, VU pair, hn::VFromD<D>& out_x, hn::VFromD<D>& out_y) {
  using V = hn::VFromD<D>;
  const hn::RebindToUnsigned<D> du;
  const V two52 = hn::Set(d, 0x1p52);
  const auto number = [&](VU below_2_52) HWY_ATTR { return hn::BitCast(d, hn::Or(below_2_52, hn::BitCast(du, two52))); };  // plus 2^52

  const V u0 = hn::Sub(number(hn::And(pair, hn::Set(du, std::uint64_t{0xffffffffu}))), two52);
  const V cell = hn::Mul(hn::Add(u0, hn::Set(d, 0.5)), hn::Set(d, 0x1p-32));
  const VU sqrt_half = hn::Set(du, philox::kSqrtHalfBits);
  const VU shifted = hn::Add(hn::BitCast(du, cell), hn::Sub(hn::BitCast(du, hn::Set(d, 1.0)), sqrt_half));
  const V exponent = hn::Sub(number(hn::ShiftRight<52>(shifted)), hn::Set(d, 0x1p52 + 1023));
  const V m = hn::BitCast(d, hn::Add(hn::And(shifted, hn::Set(du, std::uint64_t{0x000fffffffffffffu})), sqrt_half));
  const V s = hn::Div(hn::Sub(m, hn::Set(d, 1.0)), hn::Add(m, hn::Set(d, 1.0)));
  const V log = hn::Add(hn::Mul(exponent, hn::Set(d, philox::kLn2)), hn::Mul(hn::Add(s, s), UnfusedPolynomial(d, philox::kArtanh, hn::Mul(s, s))));
  const V radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0), log));

  // t: the second word plus an eighth of a turn; its upper two bits are the quarter, the others the remainder and that eighth.
  const VU t = hn::And(hn::Add(hn::ShiftRight<32>(pair), hn::Set(du, std::uint64_t{0x20000000u})), hn::Set(du, std::uint64_t{0xffffffffu}));
  const V remainder = hn::Sub(number(hn::And(t, hn::Set(du, std::uint64_t{0x3fffffffu}))), hn::Set(d, 0x1p52 + 0x1p29));
  const V angle = hn::Mul(hn::Mul(remainder, hn::Set(d, 0x1p-32)), hn::Set(d, philox::kTwoPi)), square = hn::Mul(angle, angle);
  const V sine = hn::Mul(angle, UnfusedPolynomial(d, philox::kSine, square)), cosine = UnfusedPolynomial(d, philox::kCosine, square);
  const auto odd = hn::RebindMask(d, hn::Ne(hn::And(t, hn::Set(du, std::uint64_t{0x40000000u})), hn::Zero(du)));
  const V sign = hn::BitCast(d, hn::ShiftLeft<32>(hn::And(t, hn::Set(du, std::uint64_t{0x80000000u}))));
  out_x = hn::Mul(radius, hn::Xor(hn::IfThenElse(odd, hn::Neg(sine), cosine), sign));
  out_y = hn::Mul(radius, hn::Xor(hn::IfThenElse(odd, cosine, sine), sign));
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
