// attention_f32.cpp - the attention engine in f32 arithmetic, for every target; f16 and bf16 operands are widened as they are packed.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_f32.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <limits>

#include "dtype/dispatch.h"
#include "kernels/cpu/attention_engine.h"
#include "kernels/cpu/convert-inl.h"
#include "kernels/cpu/transpose-inl.h"

#undef MEZZO_INLINE
#define MEZZO_INLINE HWY_INLINE

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::flash::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using mezzo::kernels::HWY_NAMESPACE::LoadF32;
#if HWY_TARGET != HWY_SCALAR
using mezzo::kernels::HWY_NAMESPACE::TransposeRows;
#endif

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Simd {
  using D = hn::CappedTag<float, kLanesMax>;
  using V = hn::Vec<D>;
  using U = V;
  using Mask = hn::Mask<D>;
  static constexpr int kLanes = static_cast<int>(hn::MaxLanes(D())), kPair = 1;
  static constexpr int kRows = HWY_TARGET <= HWY_AVX3 ? 8 : 4;  // 32 registers, or 16

  static HWY_INLINE V zero() { return hn::Zero(D()); }
  static HWY_INLINE V splat(float x) { return hn::Set(D(), x); }
  static HWY_INLINE V load(const float* p) { return hn::Load(D(), p); }
  static HWY_INLINE void store(float* p, V x) { hn::Store(x, D(), p); }
  static HWY_INLINE V add(V a, V b) { return hn::Add(a, b); }
  static HWY_INLINE V sub(V a, V b) { return hn::Sub(a, b); }
  static HWY_INLINE V mul(V a, V b) { return hn::Mul(a, b); }
  static HWY_INLINE V mul_add(V a, V b, V c) { return hn::MulAdd(a, b, c); }
  static HWY_INLINE V max(V a, V b) { return hn::Max(a, b); }
  static HWY_INLINE V at_most_zero(V x) { return hn::IfThenElse(hn::Gt(x, zero()), zero(), x); }
  static HWY_INLINE float sum_lanes(V x) { return hn::GetLane(hn::SumOfLanes(D(), x)); }
  static HWY_INLINE float max_lanes(V x) { return hn::GetLane(hn::MaxOfLanes(D(), x)); }

  static HWY_INLINE Mask first_n(int n) { return hn::FirstN(D(), static_cast<std::size_t>(n)); }
  static HWY_INLINE Mask both(Mask a, Mask b) { return hn::And(a, b); }
  static HWY_INLINE Mask shown(V bias) { return hn::Ne(bias, splat(-kInfinity)); }
  static HWY_INLINE V select(Mask m, V yes, V no) { return hn::IfThenElse(m, yes, no); }

  // 2^n times 2^f, n the nearest integer, by a polynomial that is 1 at 0 (tools/minimax.py exp2_nearest: relative error 2^-25.5).
  // Below 2^-126: 0.
  static HWY_INLINE V exp2(V x) {
    const hn::RebindToSigned<D> di;
    const V magic = splat(0x1.8p23f + 127);  // added, it leaves n + 127 in the low bits
    const V shifted = hn::Add(x, magic);
    const V f = hn::Sub(x, hn::Sub(shifted, magic));
    V y = hn::MulAdd(splat(0x1.470a66p-13f), f, splat(0x1.5f7266p-10f));
    y = hn::MulAdd(y, f, splat(0x1.3b271p-7f));
    y = hn::MulAdd(y, f, splat(0x1.c6ae74p-5f));
    y = hn::MulAdd(y, f, splat(0x1.ebfbe2p-3f));
    y = hn::MulAdd(y, f, splat(0x1.62e432p-1f));
    y = hn::MulAdd(y, f, splat(1));
    const V power = hn::BitCast(D(), hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
    return hn::IfThenElse(hn::Lt(x, splat(-126)), zero(), hn::Mul(y, power));
  }

  static HWY_INLINE U load_units(const Unit* p) { return load(p); }
  static HWY_INLINE U broadcast(const Unit* p) { return splat(*p); }
  static HWY_INLINE V dot(V acc, U a, U b) { return hn::MulAdd(a, b, acc); }

  static HWY_INLINE void store_row(Unit* p, V x0, V x1) { store(p, x0), store(p + kLanes, x1); }
  static HWY_INLINE void store_half_row(Unit* p, V x) { store(p, x); }
  static HWY_INLINE void store_pair(Unit* p, std::ptrdiff_t ld, V x0, V x1) { store(p, x0), store(p + ld, x1); }
};

#include "kernels/cpu/attention_block.inc"

// ---- packing ---------------------------------------------------------------------------------------

template <class T> const T* row_of(const Rows& x, std::int64_t row) { return static_cast<const T*>(x.p) + row * x.stride; }

/// Elements [c, c + lanes) of a row; zeros past d, and for a row past the last.
template <class D, class T> HWY_INLINE hn::Vec<D> load_values(D d, const Rows& x, std::int64_t row, std::int64_t c) {
  if (row >= x.rows) return hn::Zero(d);
  const T* p = row_of<T>(x, row) + c;
  const std::int64_t left = x.d - c;
  return left >= static_cast<std::int64_t>(hn::MaxLanes(d)) ? LoadF32(d, p) : LoadF32(d, p, static_cast<std::size_t>(left));
}

template <class T> void pack_rows_of(const Rows& x, Unit* to) {
  const Simd::D d;
  for (std::int64_t row = 0; row < x.rows; ++row, to += x.d) {
    std::int64_t c = 0;
    for (; c + kLanes <= x.d; c += kLanes) hn::StoreU(LoadF32(d, row_of<T>(x, row) + c), d, to + c);
    for (; c < x.d; ++c) to[c] = static_cast<float>(row_of<T>(x, row)[c]);
  }
}

#if HWY_TARGET == HWY_SCALAR
template <class T> void pack_columns_of(const Rows& x, Unit* to) {
  for (std::int64_t row = 0; row < x.rows; ++row) {
    const std::int64_t first = row / kPanel * kPanel, width = x.rows - first < kPanel ? x.rows - first : kPanel;
    for (std::int64_t c = 0; c < x.d; ++c) to[first * x.d + c * width + row % kPanel] = static_cast<float>(row_of<T>(x, row)[c]);
  }
}
#else
/// Columns of four rows, as far as whole vectors reach: how many.
template <class D, class T> HWY_INLINE std::int64_t pack_four(D d, const Rows& x, std::int64_t row, std::int64_t c, Unit* panel, std::int64_t width) {
  constexpr auto kN = static_cast<std::int64_t>(hn::MaxLanes(D()));
  const T *const r0 = row_of<T>(x, row), *const r1 = row_of<T>(x, row + 1), *const r2 = row_of<T>(x, row + 2), *const r3 = row_of<T>(x, row + 3);
  for (; c + kN <= x.d; c += kN)
    TransposeRows(d, LoadF32(d, r0 + c), LoadF32(d, r1 + c), LoadF32(d, r2 + c), LoadF32(d, r3 + c), panel + c * width,
                  static_cast<std::size_t>(width));
  return c;
}

// Four rows at a time; their last columns, and the last rows, on vectors of 16 bytes.
template <class T> void pack_columns_of(const Rows& x, Unit* to) {
  const hn::CappedTag<float, 4> d;
  const hn::RepartitionToWide<decltype(d)> wide;
  const std::int64_t lanes = (x.rows + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t row = 0; row < lanes; row += 4) {
    const std::int64_t first = row / kPanel * kPanel, width = lanes - first < kPanel ? lanes - first : kPanel;
    Unit* const panel = to + first * x.d + row % kPanel;
    std::int64_t c = 0;
    if (row + 4 <= x.rows) c = pack_four<decltype(d), T>(d, x, row, pack_four<Simd::D, T>(Simd::D(), x, row, 0, panel, width), panel, width);
    for (; c < x.d; c += 4) {
      const auto a = load_values<decltype(d), T>(d, x, row, c), b = load_values<decltype(d), T>(d, x, row + 1, c);
      const auto e = load_values<decltype(d), T>(d, x, row + 2, c), f = load_values<decltype(d), T>(d, x, row + 3, c);
      const auto ab = hn::BitCast(wide, hn::InterleaveLower(d, a, b)), ef = hn::BitCast(wide, hn::InterleaveLower(d, e, f));
      const auto ab_high = hn::BitCast(wide, hn::InterleaveUpper(d, a, b)), ef_high = hn::BitCast(wide, hn::InterleaveUpper(d, e, f));
      Unit* const at = panel + c * width;
      const std::int64_t n = x.d - c;
      hn::Store(hn::BitCast(d, hn::InterleaveLower(wide, ab, ef)), d, at);
      if (n > 1) hn::Store(hn::BitCast(d, hn::InterleaveUpper(wide, ab, ef)), d, at + width);
      if (n > 2) hn::Store(hn::BitCast(d, hn::InterleaveLower(wide, ab_high, ef_high)), d, at + 2 * width);
      if (n > 3) hn::Store(hn::BitCast(d, hn::InterleaveUpper(wide, ab_high, ef_high)), d, at + 3 * width);
    }
  }
}
#endif

template <class T> void pack_panels_of(const Rows& x, Unit* to) {
  const Simd::D d;
  const std::int64_t lanes = (x.d + kLanes - 1) / kLanes * kLanes;
  for (std::int64_t lane = 0; lane < lanes; lane += kLanes) {
    const std::int64_t first = lane / kPanel * kPanel, width = lanes - first < kPanel ? lanes - first : kPanel;
    Unit* panel = to + first * x.rows + lane % kPanel;
    for (std::int64_t row = 0; row < x.rows; ++row, panel += width) hn::Store(load_values<Simd::D, T>(d, x, row, lane), d, panel);
  }
}

void pack_rows(const Rows& x, Unit* to) {
  dispatch_low_or_f32(x.dtype, "attention", [&]<class T>() { pack_rows_of<T>(x, to); });
}
void pack_columns(const Rows& x, Unit* to) {
  dispatch_low_or_f32(x.dtype, "attention", [&]<class T>() { pack_columns_of<T>(x, to); });
}
void pack_panels(const Rows& x, Unit* to) {
  dispatch_low_or_f32(x.dtype, "attention", [&]<class T>() { pack_panels_of<T>(x, to); });
}

const Engine& engine() {
  static constexpr Engine table{kLanes, kPair, pack_rows, pack_columns, pack_panels, forward, backward};
  return table;
}

}  // namespace mezzo::kernels::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels::flash {
HWY_EXPORT(engine);
const Engine& f32_engine() { return HWY_DYNAMIC_DISPATCH(engine)(); }
}  // namespace mezzo::kernels::flash
#endif
