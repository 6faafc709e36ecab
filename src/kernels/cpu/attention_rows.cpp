// attention_rows.cpp - the row-wise work of attention: stores, row sums, masks, the dropout mask.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/philox.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/convert-inl.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::flash::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using mezzo::kernels::HWY_NAMESPACE::LoadF32;
using mezzo::kernels::HWY_NAMESPACE::Log;
using mezzo::kernels::HWY_NAMESPACE::StoreF32;
using D = hn::CappedTag<float, kLanesMax>;
constexpr D d_;
constexpr int N = static_cast<int>(hn::MaxLanes(d_));
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// ---- stores and sums -------------------------------------------------------------------------------

template <class T> void StoreRow(const float* from, float factor, T* to, std::int64_t n) {
  const auto f = hn::Set(d_, factor);
  std::int64_t i = 0;
  for (; i + N <= n; i += N) StoreF32(hn::Mul(hn::LoadU(d_, from + i), f), d_, to + i);
  if (i < n) StoreF32(hn::Mul(hn::LoadU(d_, from + i), f), d_, to + i, static_cast<std::size_t>(n - i));  // `from` has whole vectors
}

void StoreRows(const float* from, std::ptrdiff_t ld, const float* factors, float factor, const MutableRows& to) {
  dispatch_low_or_f32(to.dtype, "attention", [&]<class T>() {
    for (std::int64_t row = 0; row < to.rows; ++row)
      StoreRow(from + row * ld, factors ? factors[row] : factor, static_cast<T*>(to.p) + row * to.stride, to.d);
  });
}

template <class T> float DotRow(const T* a, const T* b, std::int64_t n) {
  auto sum = hn::Zero(d_);
  std::int64_t i = 0;
  for (; i + N <= n; i += N) sum = hn::MulAdd(LoadF32(d_, a + i), LoadF32(d_, b + i), sum);
  if (i < n) {
    const auto left = static_cast<std::size_t>(n - i);
    sum = hn::MulAdd(LoadF32(d_, a + i, left), LoadF32(d_, b + i, left), sum);
  }
  return hn::GetLane(hn::SumOfLanes(d_, sum));
}

void DotRows(const Rows& a, const Rows& b, float* dots) {
  dispatch_low_or_f32(a.dtype, "attention", [&]<class T>() {
    for (std::int64_t row = 0; row < a.rows; ++row)
      dots[row] = DotRow(static_cast<const T*>(a.p) + row * a.stride, static_cast<const T*>(b.p) + row * b.stride, a.d);
  });
}

void FinishRows(const float* top, const float* sum, float* factors, float* lse) {
  const auto nan = hn::Set(d_, std::numeric_limits<float>::quiet_NaN());
  for (int row = 0; row < kQueries; row += N) {
    const auto x = hn::Load(d_, sum + row);
    hn::Store(hn::IfThenElse(hn::Eq(x, hn::Zero(d_)), nan, hn::Div(hn::Set(d_, 1), x)), d_, factors + row);
    hn::Store(hn::MulAdd(hn::Load(d_, top + row), hn::Set(d_, 0x1.62e43p-1f), Log(d_, x)), d_, lse + row);
  }
}

// ---- masks -----------------------------------------------------------------------------------------

/// n <= N values of one mask row as bias.
template <class T> HWY_INLINE hn::Vec<D> LoadBias(const T* p, int n) {
  const auto hidden = hn::Set(d_, -kInfinity);
  if constexpr (std::is_same_v<T, float>) {
    const auto x = n == N ? hn::LoadU(d_, p) : LoadF32(d_, p, static_cast<std::size_t>(n));
    return hn::Mul(x, hn::Set(d_, 0x1.715476p0f));  // log2(e)
  } else {
    const hn::Rebind<std::uint8_t, D> bytes;
    const hn::RebindToUnsigned<D> wide;
    alignas(64) std::uint8_t tail[N] = {};
    if (n < N) std::memcpy(tail, p, static_cast<std::size_t>(n));
    const auto x = hn::PromoteTo(wide, hn::LoadU(bytes, n == N ? p : tail));
    return hn::IfThenElse(hn::RebindMask(d_, hn::Eq(x, hn::Zero(wide))), hidden, hn::Zero(d_));
  }
}

template <class T> bool FillBiasOf(const MaskPatch& mask, int rows, int keys, float* bias) {
  auto any = hn::FirstN(d_, 0);
  for (int row = 0; row < rows; ++row, bias += kStride) {
    const T* p = static_cast<const T*>(mask.p) + row * mask.stride_row;
    for (int j = 0; j < keys; j += N) {
      const int n = keys - j < N ? keys - j : N;
      hn::Vec<D> x;
      if (mask.stride_key == 1) {
        x = LoadBias(p + j, n);
      } else {
        alignas(64) T same[N];
        for (T& value : same) value = *p;
        x = LoadBias(same, N);
      }
      hn::Store(x, d_, bias + j);
      any = hn::Or(any, hn::And(hn::Ne(x, hn::Set(d_, -kInfinity)), hn::FirstN(d_, static_cast<std::size_t>(n))));
    }
  }
  return !hn::AllFalse(d_, any);
}

bool FillBias(const MaskPatch& mask, int rows, int keys, float* bias) {
  return mask.dtype == f32 ? FillBiasOf<float>(mask, rows, keys, bias) : FillBiasOf<std::uint8_t>(mask, rows, keys, bias);
}

// ---- dropout ---------------------------------------------------------------------------------------

using DU = hn::RebindToUnsigned<D>;
using Words = hn::Vec<DU>;
constexpr DU du_;

struct Wide {
  Words low, high;
};
/// The 64-bit products of 32-bit lanes with m.
HWY_INLINE Wide MulWide(Words x, std::uint32_t m) {
#if HWY_TARGET == HWY_SCALAR
  const std::uint64_t product = std::uint64_t{hn::GetLane(x)} * m;
  return {hn::Set(du_, static_cast<std::uint32_t>(product)), hn::Set(du_, static_cast<std::uint32_t>(product >> 32))};
#else
  const hn::RepartitionToWide<DU> wide;
  const auto factor = hn::Set(du_, m);
  const auto even = hn::MulEven(x, factor);
  const auto odd = hn::MulEven(hn::BitCast(du_, hn::ShiftRight<32>(hn::BitCast(wide, x))), factor);
  const auto low = hn::OddEven(hn::BitCast(du_, hn::ShiftLeft<32>(odd)), hn::BitCast(du_, even));
  return {low, hn::OddEven(hn::BitCast(du_, odd), hn::BitCast(du_, hn::ShiftRight<32>(even)))};
#endif
}

struct Counters {
  Words c0, c1, c2, c3;
};

HWY_INLINE Counters CountersFrom(std::uint64_t counter) {
  const auto base = hn::Set(du_, static_cast<std::uint32_t>(counter));
  const auto low = hn::Add(base, hn::Iota(du_, 0));
  const auto carry = hn::IfThenElseZero(hn::Lt(low, base), hn::Set(du_, 1));
  return {low, hn::Add(hn::Set(du_, static_cast<std::uint32_t>(counter >> 32)), carry), hn::Zero(du_), hn::Zero(du_)};
}

HWY_INLINE Counters PhiloxRound(const Counters& c, Words k0, Words k1) {
  const Wide p0 = MulWide(c.c0, 0xD2511F53u), p1 = MulWide(c.c2, 0xCD9E8D57u);
  return {hn::Xor3(p1.high, c.c1, k0), p1.low, hn::Xor3(p0.high, c.c3, k1), p0.low};
}

/// words[4 i + k] = word k of philox::block(seed, counter + i) for i < 2 N: Philox4x32-10 with a counter in each lane, two vectors of them
/// because one round waits for the last.
HWY_INLINE void PhiloxWords(std::uint64_t seed, std::uint64_t counter, std::uint32_t* words) {
  Counters a = CountersFrom(counter), b = CountersFrom(counter + N);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const Words key0 = hn::Set(du_, k0), key1 = hn::Set(du_, k1);
    a = PhiloxRound(a, key0, key1);
    b = PhiloxRound(b, key0, key1);
  }
  hn::StoreInterleaved4(a.c0, a.c1, a.c2, a.c3, du_, words);
  hn::StoreInterleaved4(b.c0, b.c1, b.c2, b.c3, du_, words + 4 * N);
}

/// Keys of the block that a row sees.
int seen_by(const QueriesByKeys& b, int row) { return static_cast<int>(std::clamp<std::int64_t>(b.sight.first + row * b.sight.step, 0, b.keys)); }

void FillKeep(const DropoutPatch& patch, const QueriesByKeys& block, float* keep) {
  const hn::RebindToSigned<D> di;
  // philox::uniform(word) >= p, in integers: the upper 24 bits against p 2^24 rounded up, less 1 for a strict comparison.
  const auto threshold = hn::Set(di, static_cast<std::int32_t>(std::ceil(patch.p * 0x1p24)) - 1);
  const auto kept = hn::Set(d_, static_cast<float>(1 / (1 - patch.p)));
  alignas(64) std::uint32_t words[kKeys + 4 + 9 * N];
  std::int64_t first = patch.first;
  for (int row = 0; row < block.rows; ++row, keep += kStride, first += patch.stride) {
    const int keys = seen_by(block, row), skip = static_cast<int>(first % 4);
    for (int i = 0; i < skip + keys; i += 8 * N)
      PhiloxWords(patch.seed, patch.offset + static_cast<std::uint64_t>((first - skip + i) / 4), words + i);
    for (int j = 0; j < keys; j += N) {
      const auto draw = hn::BitCast(di, hn::ShiftRight<8>(hn::LoadU(du_, words + skip + j)));
      hn::Store(hn::IfThenElseZero(hn::RebindMask(d_, hn::Gt(draw, threshold)), kept), d_, keep + j);
    }
  }
}

}  // namespace mezzo::kernels::flash::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels::flash {
HWY_EXPORT(StoreRows);
HWY_EXPORT(DotRows);
HWY_EXPORT(FinishRows);
HWY_EXPORT(FillBias);
HWY_EXPORT(FillKeep);

void store_rows(const float* from, std::ptrdiff_t ld, const float* factors, float factor, const MutableRows& to) {
  HWY_DYNAMIC_DISPATCH(StoreRows)(from, ld, factors, factor, to);
}
void dot_rows(const Rows& a, const Rows& b, float* dots) { HWY_DYNAMIC_DISPATCH(DotRows)(a, b, dots); }
void finish_rows(const float* top, const float* sum, float* factors, float* lse) { HWY_DYNAMIC_DISPATCH(FinishRows)(top, sum, factors, lse); }
bool fill_bias(const MaskPatch& mask, int rows, int keys, float* bias) { return HWY_DYNAMIC_DISPATCH(FillBias)(mask, rows, keys, bias); }
void fill_keep(const DropoutPatch& patch, const QueriesByKeys& block, float* keep) { HWY_DYNAMIC_DISPATCH(FillKeep)(patch, block, keep); }

}  // namespace mezzo::kernels::flash
#endif
