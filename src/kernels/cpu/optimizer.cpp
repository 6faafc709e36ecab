// optimizer.cpp - the optimizer's pass: gradient in, moments, truth, 16-bit copy out, each element touched once.
//
// The pass is built from three small parts: a Gradient (how g is read), a Rule (what a step does to w) and a Store (where the truth is and what
// is written beside it). Arithmetic f32, one operation at a time as torch does it (no fused multiply-add; division and square root correctly
// rounded): the bits are the same on every instruction set. Bound by memory; ordinary stores, which the caches merge better than streaming ones.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/gradient-inl.h"
#include "kernels/kernels.h"
#include "kernels/ref/optimizer.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// ---- rules: w after one step ---------------------------------------------------------------------

struct AdamRule {
  ref::Adam<float> k;
  float *m, *v;
  AdamRule(const Update& u, std::int64_t begin) : k(u), m(static_cast<float*>(u.m) + begin), v(static_cast<float*>(u.v) + begin) {}

  template <class D, class V, class Access> HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access) const {
    w = hn::Mul(w, hn::Set(d, k.decay));
    if (k.l2 != 0) g = hn::Add(g, hn::Mul(w, hn::Set(d, k.l2)));
    const V m0 = access.Load(d, m + i);
    const V m1 = hn::Add(k.near_gradient ? g : m0, hn::Mul(hn::Set(d, k.lerp), hn::Sub(g, m0)));
    const V v1 = hn::Add(hn::Mul(access.Load(d, v + i), hn::Set(d, k.beta2)), hn::Mul(hn::Mul(hn::Set(d, k.square), g), g));
    access.Store(m1, d, m + i);
    access.Store(v1, d, v + i);
    const V denominator = hn::Add(hn::Div(hn::Sqrt(v1), hn::Set(d, k.root_bias2)), hn::Set(d, k.eps));
    return hn::Add(w, hn::Div(hn::Mul(hn::Set(d, k.step), m1), denominator));
  }
};

template <bool kMomentum> struct SgdRule {
  ref::Sgd<float> k;
  float* m;
  SgdRule(const Update& u, std::int64_t begin) : k(u), m(kMomentum ? static_cast<float*>(u.m) + begin : nullptr) {}

  template <class D, class V, class Access> HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access) const {
    if (k.l2 != 0) g = hn::Add(g, hn::Mul(w, hn::Set(d, k.l2)));
    if constexpr (kMomentum) {
      const V momentum = hn::Set(d, k.momentum);
      const V m1 = k.first ? g : hn::Add(hn::Mul(access.Load(d, m + i), momentum), g);
      access.Store(m1, d, m + i);
      g = k.nesterov ? hn::Add(g, hn::Mul(m1, momentum)) : m1;
    }
    return hn::Add(w, hn::Mul(hn::Set(d, k.step), g));
  }
};

// ---- stores: where the truth is ------------------------------------------------------------------

/// The f32 weights are the truth; their cached cast, if there is one, follows.
template <class LowT> struct F32Store {
  using Low = LowT;
  float* w;
  Low* copy;
  F32Store(const Update& u, std::int64_t begin) : w(static_cast<float*>(u.w) + begin), copy(u.copy ? static_cast<Low*>(u.copy) + begin : nullptr) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return access.Load(d, w + i); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access) const {
    access.Store(v, d, w + i);
    if (copy) access.Store(v, d, copy + i);
  }
};

/// v changed so that rounding it to nearest even to a format at least two bits shorter rounds v half away from zero: with its last bit set no
/// number is a tie any more, former ties lie above the middle, and nothing else changes sides. Of a bf16 that is (bits + 0x8000) >> 16.
template <class D, class V> HWY_INLINE V BreakTies(D d, V v) {
  const hn::RebindToUnsigned<D> du;
  return hn::IfThenElse(hn::IsInf(v), v, hn::BitCast(d, hn::Or(hn::BitCast(du, v), hn::Set(du, 1u))));
}

/// An f32 master is the truth; the weights are its 16-bit copy.
template <class LowT> struct MasterStore {
  using Low = LowT;
  float* master;
  Low* w;
  bool half_away;
  MasterStore(const Update& u, std::int64_t begin) : master(u.master + begin), w(static_cast<Low*>(u.w) + begin), half_away(u.copy_half_away) {}

  template <class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const { return access.Load(d, master + i); }
  template <class D, class V, class Access> HWY_INLINE void Commit(D d, std::size_t i, V v, Access access) const {
    access.Store(v, d, master + i);
    access.Store(half_away ? BreakTies(d, v) : v, d, w + i);
  }
};

// ---- the pass ------------------------------------------------------------------------------------

template <class RuleT, class StoreT, class G, class Round> void Pass(const Update& u, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<float> d;
  const Gradient<G, Round> gradient{static_cast<const G*>(u.g) + begin, ref::ScaleFactors(u.g_scale)};
  const RuleT rule(u, begin);
  const StoreT store(u, begin);
  ForEachVector(d, static_cast<std::size_t>(end - begin), [&](std::size_t i, auto access) MEZZO_BODY {
    const auto g = gradient.Scale(d, gradient.Load(d, i, access));
    store.Commit(d, i, rule.Step(d, i, store.Load(d, i, access), g, access), access);
  });
}

template <class RuleT, class StoreT> void PassOverGradient(const Update& u, std::int64_t begin, std::int64_t end) {
  if (u.g_dtype == f32 && u.round_g) return Pass<RuleT, StoreT, float, typename StoreT::Low>(u, begin, end);
  dispatch_low_or_f32(u.g_dtype, "update", [&]<class G>() { Pass<RuleT, StoreT, G, G>(u, begin, end); });
}

template <class RuleT> void PassOverStore(const Update& u, std::int64_t begin, std::int64_t end) {
  dispatch_16bit(u.low, "update", [&]<class Low>() {
    switch (u.store) {
      case Store::f32: return PassOverGradient<RuleT, F32Store<Low>>(u, begin, end);
      case Store::master: return PassOverGradient<RuleT, MasterStore<Low>>(u, begin, end);
      case Store::count: break;
    }
  });
}

// Elements [begin, end) of the parameter.
void UpdateRange(const Update& u, std::int64_t begin, std::int64_t end) {
  switch (u.rule) {
    case Rule::adam: return PassOverStore<AdamRule>(u, begin, end);
    case Rule::sgd: return u.m ? PassOverStore<SgdRule<true>>(u, begin, end) : PassOverStore<SgdRule<false>>(u, begin, end);
    case Rule::count: break;
  }
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(UpdateRange);
namespace {

// f64 weights, moments and gradient.
void update_f64(const Update& u, std::int64_t begin, std::int64_t end) {
  const ref::Adam<double> adam(u);
  const ref::Sgd<double> sgd(u);
  auto* w = static_cast<double*>(u.w);
  auto *m = static_cast<double*>(u.m), *v = static_cast<double*>(u.v);
  for (std::int64_t i = begin; i < end; ++i) {
    const double g = static_cast<const double*>(u.g)[i] * u.g_scale;
    if (u.rule == Rule::adam) adam(g, w[i], m[i], v[i]);
    else if (m) sgd(g, w[i], m[i]);
    else sgd(g, w[i]);
  }
}

}  // namespace

void update(Queue&, const Update& u) {
  MEZZO_CHECK(u.rule != Rule::adam || (u.m && u.v));
  MEZZO_CHECK(u.store != Store::master || u.master);
  MEZZO_CHECK(u.g_dtype != f64 || (u.store == Store::f32 && !u.copy));
  constexpr std::int64_t kGrain = 16384, kAlign = 64;  // a cache line of the narrowest array belongs to one thread
  parallel_for(
      u.n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        if (u.g_dtype == f64) update_f64(u, begin, end);
        else HWY_DYNAMIC_DISPATCH(UpdateRange)(u, begin, end);
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
