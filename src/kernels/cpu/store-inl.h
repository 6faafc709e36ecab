// store-inl.h - how an optimizer's pass reads gradients and keeps weights: for each Store, where the f32 truth of an element is read from and what
// is written of it.
//
//   store.Load(d, i, access)                 the truth of elements from i on
//   store.Commit(d, i, v, access, bits)      the new truth; what of it is not an f32 is rounded here
#if defined(MEZZO_KERNELS_CPU_STORE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_STORE_INL_H_
#undef MEZZO_KERNELS_CPU_STORE_INL_H_
#else
#define MEZZO_KERNELS_CPU_STORE_INL_H_
#endif

#include "core/fail.h"
#include "kernels/cpu/gradient-inl.h"
#include "kernels/cpu/quantize-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Which of two or three formats memory has does not change during a pass: a branch on it is predicted, and costs nothing beside the memory. As
// template arguments they would multiply with rules and stores to hundreds of loops.

/// An Update's gradient in any dtype, rounded and scaled.
class AnyGradient {
 public:
  explicit AnyGradient(const Update& u) : g_(u.g), dtype_(u.g_dtype), round_(u.g_dtype == f32 && u.round_g ? u.low : f32), scale_(u.g_scale) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    const auto scaled = [&](auto gradient) MEZZO_BODY { return gradient.Scale(d, gradient.Load(d, i, access)); };
    if (dtype_ == bf16) return scaled(Of<bf16_t, bf16_t>());
    if (dtype_ == f16) return scaled(Of<f16_t, f16_t>());
    if (round_ == bf16) return scaled(Of<float, bf16_t>());
    if (round_ == f16) return scaled(Of<float, f16_t>());
    return scaled(Of<float, float>());
  }

 private:
  template <class G, class Round> HWY_INLINE Gradient<G, Round> Of() const { return {static_cast<const G*>(g_), scale_}; }
  const void* g_;
  Dtype dtype_, round_;
  ref::ScaleFactors scale_;
};

/// Elements of bf16 or f16.
class AnyLow {
 public:
  AnyLow(void* p, Dtype dtype) : p_(p), bf16_(dtype == bf16) {}
  explicit operator bool() const { return p_ != nullptr; }
  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    return bf16_ ? access.Load(d, static_cast<const bf16_t*>(p_) + i) : access.Load(d, static_cast<const f16_t*>(p_) + i);
  }
  template <class D, class V, class Access> HWY_INLINE void Store(D d, std::size_t i, V v, Access access) const {
    if (bf16_) access.Store(v, d, static_cast<bf16_t*>(p_) + i);
    else access.Store(v, d, static_cast<f16_t*>(p_) + i);
  }

 private:
  void* p_;
  bool bf16_;
};

/// The f32 weights are the truth; their cached cast, if there is one, follows.
class F32Store {
 public:
  explicit F32Store(const Update& u) : w_(static_cast<float*>(u.w)), copy_(u.copy, u.low) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return access.Load(d, w_ + i); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits&) const {
    access.Store(v, d, w_ + i);
    if (copy_) copy_.Store(d, i, v, access);
  }

 private:
  float* w_;
  AnyLow copy_;
};

/// v changed so that rounding it to nearest even to a format at least two bits shorter rounds v half away from zero: with its last bit set no
/// number is a tie any more, former ties lie above the middle, and nothing else changes sides. Of a bf16 that is (bits + 0x8000) >> 16.
template <class D, class V> HWY_INLINE V BreakTies(D d, V v) {
  const hn::RebindToUnsigned<D> du;
  return hn::IfThenElse(hn::IsInf(v), v, hn::BitCast(d, hn::Or(hn::BitCast(du, v), hn::Set(du, 1u))));
}

/// An f32 master is the truth; the weights are its 16-bit copy.
class MasterStore {
 public:
  explicit MasterStore(const Update& u) : master_(u.master), w_(u.w, u.low), half_away_(u.copy_half_away) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return access.Load(d, master_ + i); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits&) const {
    access.Store(v, d, master_ + i);
    w_.Store(d, i, half_away_ ? BreakTies(d, v) : v, access);
  }

 private:
  float* master_;
  AnyLow w_;
  bool half_away_;
};

/// ref::split and ref::join: bf16 weights and 16 bits that complete them to the f32 truth.
class SplitStore {
 public:
  explicit SplitStore(const Update& u) : w_(static_cast<bf16_t*>(u.w)), rest_(static_cast<std::uint16_t*>(u.rest)) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    const hn::RebindToSigned<D> di;
    const auto high = hn::BitCast(di, access.Load(d, w_ + i));
    const auto low = hn::ShiftRight<16>(hn::BitCast(di, hn::ShiftLeft<16>(LoadBits(access, d, rest_ + i))));  // with its sign
    const auto cleared = hn::And(hn::Eq(hn::ShiftLeft<1>(high), hn::Zero(di)), hn::Lt(low, hn::Zero(di)));
    return hn::BitCast(d, hn::IfThenElse(cleared, high, hn::Add(high, low)));
  }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits&) const {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, v);
    const auto nan = hn::RebindMask(du, hn::IsNaN(v));
    const auto high = hn::ShiftRight<16>(hn::Add(bits, hn::Set(du, 0x8000u)));
    StoreBits(access, d, hn::IfThenElse(nan, hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u)), high), &w_[i].bits);
    // bits - (high << 16), cut to 16: the lower half of bits.
    StoreBits(access, d, hn::IfThenZeroElse(nan, hn::And(bits, hn::Set(du, 0xffffu))), rest_ + i);
  }

 private:
  bf16_t* w_;
  std::uint16_t* rest_;
};

/// bf16 weights and, as another bf16, what their last rounding left over: a number of two words, as in Kahan's summation.
class KahanStore {
 public:
  explicit KahanStore(const Update& u) : w_(static_cast<bf16_t*>(u.w)), rest_(static_cast<bf16_t*>(u.rest)) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    return hn::Add(access.Load(d, w_ + i), access.Load(d, rest_ + i));
  }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits&) const {
    const auto bits = Bf16FromF32(d, v);
    const V w = F32FromBf16(d, bits);
    StoreBits(access, d, bits, &w_[i].bits);
    access.Store(hn::IfThenElseZero(hn::IsFinite(w), hn::Sub(v, w)), d, rest_ + i);
  }

 private:
  bf16_t *w_, *rest_;
};

/// bf16 weights, rounded by chance: on average nothing is lost.
class StochasticStore {
 public:
  explicit StochasticStore(const Update& u) : w_(static_cast<bf16_t*>(u.w)) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return access.Load(d, w_ + i); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits& bits) const {
    StoreBits(access, d, RoundStochastic(d, v, bits.Of(TileBits::weight, d, i)), &w_[i].bits);
  }

 private:
  bf16_t* w_;
};

/// 16-bit weights, rounded to nearest even: an update below half their spacing is lost.
class PureStore {
 public:
  explicit PureStore(const Update& u) : w_(u.w, u.low) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return w_.Load(d, i, access); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access, const TileBits&) const {
    w_.Store(d, i, v, access);
  }

 private:
  AnyLow w_;
};

/// f.template operator()<the store of u>().
template <class F> HWY_INLINE void DispatchStore(const Update& u, F f) {
  switch (u.store) {
    case Store::f32: return f.template operator()<F32Store>();
    case Store::master: return f.template operator()<MasterStore>();
    case Store::split: return f.template operator()<SplitStore>();
    case Store::kahan: return f.template operator()<KahanStore>();
    case Store::stochastic: return f.template operator()<StochasticStore>();
    case Store::pure: return f.template operator()<PureStore>();
    case Store::count: break;
  }
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
