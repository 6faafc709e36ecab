// optimizer.cpp - the optimizer's pass: gradient in, moments, truth, 16-bit copy out, each element touched once.
//
// The pass is built from four small parts: a gradient (how g is read) and a store (where the truth is and what is written beside it), both of
// store-inl.h, a rule (what a step does to w), and moments (in which format they are kept). Arithmetic f32, one operation at a time as torch does it
// (no fused multiply-add; division and square root correctly rounded): the bits are the same on every instruction set. Bound by memory; ordinary
// stores, which the caches merge better than streaming ones.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/parallel.h"
#include "kernels/cpu/store-inl.h"
#include "kernels/kernels.h"
#include "kernels/ref/optimizer.h"
#include "kernels/ref/quantize.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// ---- moments: how a rule's states are kept -----------------------------------------------------------

/// As f32, or bf16 rounded by chance or to nearest. What fades below the least normal number becomes zero: where gradients stay away (a dead unit, a
/// word unseen) a moment would otherwise end at a subnormal one that rounding holds in place, and each step pay for it (the pass 4.6 times slower on
/// a Zen 4).
class PlainMoments {
 public:
  explicit PlainMoments(const Update& u) : p_{u.m, u.v}, bf16_(u.moments == bf16), nearest_(u.m_nearest) {}

  void Begin(std::size_t, std::size_t) {}
  template <int kWhich, class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    return bf16_ ? access.Load(d, static_cast<const bf16_t*>(p_[kWhich]) + i) : access.Load(d, static_cast<const float*>(p_[kWhich]) + i);
  }
  template <int kWhich, class D, class V, class Access> HWY_INLINE void Store(D d, std::size_t i, V x, Access access, const TileBits& bits) {
    x = hn::IfThenZeroElse(hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::min())), x);
    if (!bf16_) return access.Store(x, d, static_cast<float*>(p_[kWhich]) + i);
    bf16_t* p = static_cast<bf16_t*>(p_[kWhich]) + i;
    if (nearest_) access.Store(x, d, p);
    else StoreBits(access, d, RoundStochastic(d, x, bits.Of(kUses[kWhich], d, i)), &p->bits);
  }
  void Finish(std::size_t, std::size_t, const TileBits&) {}

  static constexpr TileBits::Use kUses[] = {TileBits::first_moment, TileBits::second_moment};

 private:
  void* p_[2];
  bool bf16_, nearest_;
};

/// Adam's two, in 8 bits: codes of the dynamic map relative to the largest of each tile. New ones wait in L1 until that is known.
class BlockMoments {
 public:
  explicit BlockMoments(const Update& u) : codes_{static_cast<std::uint8_t*>(u.m), static_cast<std::uint8_t*>(u.v)}, scales_{u.m_scale, u.v_scale} {}

  void Begin(std::size_t begin, std::size_t end) {
    if (end - begin < kTile) std::memset(fresh_, 0, sizeof fresh_);
  }
  template <int kWhich, class D, class Access> HWY_INLINE hn::VFromD<D> Load(D d, std::size_t i, Access access) const {
    const hn::RebindToUnsigned<D> du;
    const auto scale = hn::Set(d, scales_[kWhich][i / kTile]);
    const auto code = LoadBits(access, d, codes_[kWhich] + i);
    if constexpr (kWhich == 1) return hn::Mul(DynamicValue<7>(d, code), scale);
    const auto size = hn::Mul(DynamicValue<6>(d, hn::And(code, hn::Set(du, 0x7fu))), scale);
    return hn::Or(size, hn::BitCast(d, hn::ShiftLeft<24>(hn::And(code, hn::Set(du, 0x80u)))));
  }
  template <int kWhich, class D, class V, class Access> HWY_INLINE void Store(D d, std::size_t i, V x, Access access, const TileBits&) {
    access.Store(x, d, fresh_[kWhich] + i % kTile);
  }
  void Finish(std::size_t begin, std::size_t end, const TileBits& bits) {
    Encode<0>(begin, end, bits);
    Encode<1>(begin, end, bits);
  }

 private:
  template <int kWhich> HWY_INLINE void Encode(std::size_t begin, std::size_t end, const TileBits& bits) {
    const hn::ScalableTag<float> d;
    const hn::RebindToSigned<decltype(d)> di;
    const hn::RebindToUnsigned<decltype(d)> du;
    const float* fresh = fresh_[kWhich];
    auto largest = hn::Zero(di);  // of the bits of their sizes: a NaN is larger than Inf
    for (std::size_t i = 0; i < kTile; i += hn::Lanes(d)) largest = hn::Max(largest, hn::BitCast(di, hn::Abs(hn::Load(d, fresh + i))));
    const float found = std::bit_cast<float>(hn::GetLane(hn::MaxOfLanes(di, largest)));
    const bool usable = std::isfinite(found);
    scales_[kWhich][begin / kTile] = usable ? found : std::numeric_limits<float>::quiet_NaN();  // what is not finite stays so
    const auto divisor = hn::Set(d, usable && found > 0 ? found : 1.0f), one = hn::Set(d, 1.0f);
    ForEachVector(d, end - begin, [&](std::size_t i, auto access) MEZZO_BODY {
      const auto x = hn::Load(d, fresh + i), ratio = hn::Div(hn::Abs(x), divisor);
      const auto size = hn::IfThenElse(hn::Le(ratio, one), ratio, one);
      const auto random = bits.Uniform(PlainMoments::kUses[kWhich], d, i);
      std::uint8_t* to = codes_[kWhich] + begin + i;
      if constexpr (kWhich == 1) StoreBits(access, d, DynamicCode<7>(d, size, random), to);
      else StoreBits(access, d, hn::Or(DynamicCode<6>(d, size, random), hn::And(hn::ShiftRight<24>(hn::BitCast(du, x)), hn::Set(du, 0x80u))), to);
    });
  }

  HWY_ALIGN float fresh_[2][kTile];
  std::uint8_t* codes_[2];
  float* scales_[2];
};

// ---- rules: w after one step ---------------------------------------------------------------------------

/// Most rules do not care where in its parameter an element is.
struct ElementRule {
  template <class F> HWY_INLINE void ForEachRun(std::size_t begin, std::size_t end, F f) { f(begin, end); }
};

struct AdamRule : ElementRule {
  ref::Adam<float> k;
  explicit AdamRule(const Update& u) : k(u) {}

  template <class D, class V, class Access, class Moments>
  HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access, Moments& moments, const TileBits& bits) const {
    w = hn::Mul(w, hn::Set(d, k.decay));
    if (k.l2 != 0) g = hn::Add(g, hn::Mul(w, hn::Set(d, k.l2)));
    const V m0 = moments.template Load<0>(d, i, access);
    const V m1 = hn::Add(k.near_gradient ? g : m0, hn::Mul(hn::Set(d, k.lerp), hn::Sub(g, m0)));
    const V v0 = moments.template Load<1>(d, i, access);
    const V v1 = hn::Add(hn::Mul(v0, hn::Set(d, k.beta2)), hn::Mul(hn::Mul(hn::Set(d, k.square), g), g));
    moments.template Store<0>(d, i, m1, access, bits);
    moments.template Store<1>(d, i, v1, access, bits);
    const V denominator = hn::Add(hn::Div(hn::Sqrt(v1), hn::Set(d, k.root_bias2)), hn::Set(d, k.eps));
    return hn::Add(w, hn::Div(hn::Mul(hn::Set(d, k.step), m1), denominator));
  }
};

template <bool kMomentum> struct SgdRule : ElementRule {
  ref::Sgd<float> k;
  explicit SgdRule(const Update& u) : k(u) {}

  template <class D, class V, class Access, class Moments>
  HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access, Moments& moments, const TileBits& bits) const {
    if (k.l2 != 0) g = hn::Add(g, hn::Mul(w, hn::Set(d, k.l2)));
    if constexpr (kMomentum) {
      const V momentum = hn::Set(d, k.momentum);
      const V m1 = k.first ? g : hn::Add(hn::Mul(moments.template Load<0>(d, i, access), momentum), g);
      moments.template Store<0>(d, i, m1, access, bits);
      g = k.nesterov ? hn::Add(g, hn::Mul(m1, momentum)) : m1;
    }
    return hn::Add(w, hn::Mul(hn::Set(d, k.step), g));
  }
};

struct AdagradRule : ElementRule {
  ref::Adagrad<float> k;
  explicit AdagradRule(const Update& u) : k(u) {}

  template <class D, class V, class Access, class Moments>
  HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access, Moments& moments, const TileBits& bits) const {
    if (k.l2 != 0) g = hn::Add(g, hn::Mul(w, hn::Set(d, k.l2)));
    const V sum = hn::Add(moments.template Load<0>(d, i, access), hn::Mul(g, g));
    moments.template Store<0>(d, i, sum, access, bits);
    return hn::Add(w, hn::Div(hn::Mul(hn::Set(d, k.step), g), hn::Add(hn::Sqrt(sum), hn::Set(d, k.eps))));
  }
};

struct LionRule : ElementRule {
  ref::Lion<float> k;
  explicit LionRule(const Update& u) : k(u) {}

  template <class D, class V, class Access, class Moments>
  HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access, Moments& moments, const TileBits& bits) const {
    const V m = moments.template Load<0>(d, i, access);
    const V c = hn::Add(hn::Mul(m, hn::Set(d, k.beta1)), hn::Mul(g, hn::Set(d, k.rest1)));
    const V sign = hn::IfThenElse(hn::Or(hn::Eq(c, hn::Zero(d)), hn::IsNaN(c)), c, hn::CopySign(hn::Set(d, 1.0f), c));
    moments.template Store<0>(d, i, hn::Add(hn::Mul(m, hn::Set(d, k.beta2)), hn::Mul(g, hn::Set(d, k.rest2))), access, bits);
    return hn::Add(hn::Mul(w, hn::Set(d, k.decay)), hn::Mul(hn::Set(d, k.step), sign));
  }
};

/// Its moments are only read here: adafactor_moments has brought them up to date.
class AdafactorRule {
 public:
  explicit AdafactorRule(const Update& u)
      : k_(u),
        m_(static_cast<const float*>(u.m)),
        v_(static_cast<const float*>(u.v)),
        factor_(static_cast<const float*>(u.factor)),
        rows_(static_cast<std::size_t>(u.rows)),
        columns_(static_cast<std::size_t>(u.columns)) {}

  /// Row by row.
  template <class F> HWY_INLINE void ForEachRun(std::size_t begin, std::size_t end, F f) {
    if (rows_ == 0) return f(begin, end);
    while (begin < end) {
      const std::size_t row = begin / columns_, row_end = std::min(end, (row + 1) * columns_);
      row_begin_ = row * columns_;
      row_factor_ = factor_[row];
      column_ = v_ + row / rows_ * columns_;
      f(begin, row_end);
      begin = row_end;
    }
  }
  template <class D, class V, class Access, class Moments>
  HWY_INLINE V Step(D d, std::size_t i, V w, V g, Access access, Moments&, const TileBits&) const {
    const V estimate = rows_ == 0 ? access.Load(d, m_ + i) : hn::Mul(hn::Set(d, row_factor_), access.Load(d, column_ + (i - row_begin_)));
    const V scaled = hn::Div(g, hn::Sqrt(hn::Max(estimate, hn::Set(d, k_.least))));
    return hn::Add(hn::Mul(w, hn::Set(d, k_.decay)), hn::Mul(hn::Set(d, k_.step), scaled));
  }

 private:
  ref::Adafactor<float> k_;
  const float *m_, *v_, *factor_;
  std::size_t rows_, columns_;
  std::size_t row_begin_ = 0;
  float row_factor_ = 0;
  const float* column_ = nullptr;
};

// ---- the pass --------------------------------------------------------------------------------------------

template <class RuleT, class MomentsT, class StoreT> void Pass(const Update& u, std::size_t begin, std::size_t end) {
  const hn::ScalableTag<float> d;
  const AnyGradient gradient(u);
  const StoreT store(u);
  RuleT rule(u);
  MomentsT moments(u);
  const bool draws = u.moments == u8 || (u.moments == bf16 && !u.m_nearest);
  TileBits bits(u.seed, u.stream, u.store == Store::stochastic, draws && u.m, draws && u.v);
  for (std::size_t tile = begin; tile < end; tile += kTile) {
    const std::size_t tile_end = std::min(tile + kTile, end);
    bits.Draw(tile / kTile);
    moments.Begin(tile, tile_end);
    rule.ForEachRun(tile, tile_end, [&](std::size_t run, std::size_t run_end) MEZZO_BODY {
      ForEachVector(d, run_end - run, [&](std::size_t k, auto access) MEZZO_BODY {
        const std::size_t i = run + k;
        const auto g = gradient.Load(d, i, access);
        store.Commit(d, i, rule.Step(d, i, store.Load(d, i, access), g, access, moments, bits), access, bits);
      });
    });
    moments.Finish(tile, tile_end, bits);
  }
}

template <class RuleT, class MomentsT = PlainMoments> void PassOverStore(const Update& u, std::int64_t begin, std::int64_t end) {
  DispatchStore(u, [&]<class StoreT>() { Pass<RuleT, MomentsT, StoreT>(u, static_cast<std::size_t>(begin), static_cast<std::size_t>(end)); });
}

// Elements [begin, end) of the parameter; begin is that of a tile.
void UpdateRange(const Update& u, std::int64_t begin, std::int64_t end) {
  switch (u.rule) {
    case Rule::adam: return u.moments == u8 ? PassOverStore<AdamRule, BlockMoments>(u, begin, end) : PassOverStore<AdamRule>(u, begin, end);
    case Rule::sgd: return u.m ? PassOverStore<SgdRule<true>>(u, begin, end) : PassOverStore<SgdRule<false>>(u, begin, end);
    case Rule::adagrad: return PassOverStore<AdagradRule>(u, begin, end);
    case Rule::lion: return PassOverStore<LionRule>(u, begin, end);
    case Rule::adafactor: return PassOverStore<AdafactorRule>(u, begin, end);
    case Rule::count: break;
  }
}

void SplitRange(const Update& u, const float* truth, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<float> d;
  const SplitStore store(u);
  const TileBits none(0, 0, false, false, false);
  ForEachVector(d, static_cast<std::size_t>(end - begin), [&](std::size_t k, auto access) MEZZO_BODY {
    const std::size_t i = static_cast<std::size_t>(begin) + k;
    store.Commit(d, i, access.Load(d, truth + i), access, none);
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(UpdateRange);
HWY_EXPORT(SplitRange);
namespace {

// f64 weights, moments and gradient; the reference templates are the implementation.
void update_f64(const Update& u, std::int64_t begin, std::int64_t end) {
  const ref::Adam<double> adam(u);
  const ref::Sgd<double> sgd(u);
  const ref::Adagrad<double> adagrad(u);
  const ref::Lion<double> lion(u);
  const ref::Adafactor<double> adafactor(u);
  auto* w = static_cast<double*>(u.w);
  auto *m = static_cast<double*>(u.m), *v = static_cast<double*>(u.v);
  for (std::int64_t i = begin; i < end; ++i) {
    const double g = static_cast<const double*>(u.g)[i] * u.g_scale;
    switch (u.rule) {
      case Rule::adam: adam(g, w[i], m[i], v[i]); break;
      case Rule::sgd: m ? sgd(g, w[i], m[i]) : sgd(g, w[i]); break;
      case Rule::adagrad: adagrad(g, w[i], m[i]); break;
      case Rule::lion: lion(g, w[i], m[i]); break;
      case Rule::adafactor: adafactor(g, w[i], ref::second_moment(u, m, v, static_cast<const double*>(u.factor), i)); break;
      case Rule::count: break;
    }
  }
}

constexpr std::int64_t kGrain = 16384, kAlign = kQuantBlock;  // a tile and a cache line of any array belong to one thread

}  // namespace

void update(Queue&, const Update& u) {
  MEZZO_CHECK(u.rule != Rule::adam || (u.m && u.v));
  MEZZO_CHECK(u.store != Store::master || u.master);
  MEZZO_CHECK((u.store != Store::split && u.store != Store::kahan) || u.rest);
  MEZZO_CHECK(u.g_dtype != f64 || (u.store == Store::f32 && !u.copy && u.moments == f32));
  MEZZO_CHECK(u.moments != u8 || (u.rule == Rule::adam && u.m_scale && u.v_scale));
  parallel_for(
      u.n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        if (u.g_dtype == f64) update_f64(u, begin, end);
        else HWY_DYNAMIC_DISPATCH(UpdateRange)(u, begin, end);
      },
      kAlign);
}

void split(Queue&, const float* truth, void* w, void* rest, std::int64_t n) {
  Update u;
  u.w = w;
  u.rest = rest;
  parallel_for(
      n, kGrain,
      [&](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(SplitRange)
        (u, truth, begin, end);
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
