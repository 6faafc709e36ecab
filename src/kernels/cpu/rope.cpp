// rope.cpp - rotary position embedding. Storage T, angles f64, rotation f32, one rounding on store.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/rope.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

using Wide = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Wide>;

struct SinCos {
  hn::Vec<Narrow> sin, cos;
};

// Of an angle in f64: position * inv_freq is exact there, so a position of 100,000 is turned as well as the first one.
// Polynomials: sin64 and cos64 of tools/minimax.py.
HWY_INLINE SinCos SinCosOf(hn::Vec<Wide> angle) {
  const Wide d;
  const Narrow narrow;
  const auto quarter_turns = hn::Round(hn::Mul(angle, hn::Set(d, 0x1.45f306dc9c883p-1)));  // of pi / 2, which is taken off in two parts, the first
  auto r = hn::Sub(angle, hn::Mul(quarter_turns, hn::Set(d, 0x1.921fb544p0)));             // of 31 bits: exact for 4 million turns
  r = hn::Sub(r, hn::Mul(quarter_turns, hn::Set(d, 0x1.0b4611a626331p-34)));
  const auto z = hn::Mul(r, r);
  const auto sin =
      hn::MulAdd(hn::Mul(r, z), Polynomial(d, z, -0x1.5555554c8dbd7p-3, 0x1.11110875cac6dp-7, -0x1.a00f835d68166p-13, 0x1.6cd20cc515bc9p-19), r);
  const auto cos =
      hn::MulAdd(hn::Mul(z, z), Polynomial(d, z, 0x1.5555554f2f210p-5, -0x1.6c16b876b5849p-10, 0x1.a011095d2a845p-16, -0x1.242613413a6c0p-22),
                 hn::NegMulAdd(hn::Set(d, 0.5), z, hn::Set(d, 1.0)));
  const auto quarter = hn::Set(d, 0.25);
  const auto quadrant = hn::Sub(quarter_turns, hn::Mul(hn::Floor(hn::Mul(quarter_turns, quarter)), hn::Set(d, 4.0)));  // 0, 1, 2 or 3
  const auto one = hn::Set(d, 1.0), two = hn::Set(d, 2.0), three = hn::Set(d, 3.0);
  const auto odd = hn::Or(hn::Eq(quadrant, one), hn::Eq(quadrant, three));
  const auto sin_negative = hn::Ge(quadrant, two), cos_negative = hn::Or(hn::Eq(quadrant, one), hn::Eq(quadrant, two));
  const auto s = hn::IfThenElse(odd, cos, sin), c = hn::IfThenElse(odd, sin, cos);
  return {hn::DemoteTo(narrow, hn::IfThenElse(sin_negative, hn::Neg(s), s)), hn::DemoteTo(narrow, hn::IfThenElse(cos_negative, hn::Neg(c), c))};
}

// cos and sin of position * inv_freq (half) as the rotation reads them, written in whole vectors. Halves: (half) each. Interleaved: (2 half)
// each, every cos twice, and -sin, sin.
void FillAngles(const float* inv_freq, std::size_t half, double position, double sign, bool interleaved, float* cos, float* sin) {
  const Wide d;
  const Narrow narrow;
  const std::size_t lanes = hn::Lanes(narrow);
  const auto turn = hn::Set(d, sign * position);
  for (std::size_t i = 0; i < half; i += lanes) {
    const auto frequency = half - i < lanes ? LoadF32(narrow, inv_freq + i, half - i) : LoadF32(narrow, inv_freq + i);
    const SinCos of = SinCosOf(hn::Mul(hn::PromoteTo(d, frequency), turn));
    if (interleaved) {
      hn::StoreInterleaved2(of.cos, of.cos, narrow, cos + 2 * i);
      hn::StoreInterleaved2(hn::Neg(of.sin), of.sin, narrow, sin + 2 * i);
    } else {
      hn::StoreU(of.cos, narrow, cos + i);
      hn::StoreU(of.sin, narrow, sin + i);
    }
  }
}

template <class T> void RotateHalves(const T* x, T* y, const float* cos, const float* sin, std::size_t half) {
  const hn::ScalableTag<float> d;
  ForEachVector(d, half, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto a = access.Load(d, x + i), b = access.Load(d, x + half + i), c = access.Load(d, cos + i), s = access.Load(d, sin + i);
    access.Store(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, y + i);
    access.Store(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + half + i);
  });
}

template <class T> void RotateInterleaved(const T* x, T* y, const float* cos, const float* sin, std::size_t n) {
#if HWY_TARGET == HWY_SCALAR  // one lane: no neighbour to swap with
  for (std::size_t i = 0; i < n; i += 2) {
    const float a = static_cast<float>(x[i]), b = static_cast<float>(x[i + 1]);
    y[i] = static_cast<T>(a * cos[i] + b * sin[i]);
    y[i + 1] = static_cast<T>(b * cos[i + 1] + a * sin[i + 1]);
  }
#else
  const hn::ScalableTag<float> d;
  ForEachVector(d, n, [&](std::size_t i, auto access) MEZZO_BODY {
    const auto v = access.Load(d, x + i);
    access.Store(hn::MulAdd(hn::Reverse2(d, v), access.Load(d, sin + i), hn::Mul(v, access.Load(d, cos + i))), d, y + i);
  });
#endif
}

// Positions [begin, end) of every sequence; x and y (rows, heads, d), row r at position r % t; angles: room for two tables.
void RopePositions(Dtype dtype, const void* x, void* y, const float* inv_freq, const std::int64_t* positions, std::int64_t rows, std::int64_t t,
                   std::int64_t heads, std::int64_t d, bool interleaved, double sign, float* angles, std::int64_t table, std::int64_t begin,
                   std::int64_t end) {
  dispatch_low_or_f32(dtype, "rope", [&]<class T>() {
    float *cos = angles, *sin = angles + table;
    for (std::int64_t p = begin; p < end; ++p) {
      FillAngles(inv_freq, d / 2, static_cast<double>(positions ? positions[p] : p), sign, interleaved, cos, sin);
      for (std::int64_t r = p; r < rows; r += t) {
        for (std::int64_t h = r * heads; h < (r + 1) * heads; ++h) {
          const T* from = static_cast<const T*>(x) + h * d;
          T* to = static_cast<T*>(y) + h * d;
          if (interleaved) RotateInterleaved(from, to, cos, sin, d);
          else RotateHalves(from, to, cos, sin, d / 2);
        }
      }
    }
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(RopePositions);

void rope(Queue& queue, Dtype dtype, const void* x, void* y, const float* inv_freq, const std::int64_t* positions, std::int64_t rows, std::int64_t t,
          std::int64_t heads, std::int64_t d, bool interleaved, double sign) {
  MEZZO_CHECK(d % 2 == 0);
  if (d == 0 || heads == 0) return;
  // By position, not by row: the angles of one are computed once for the whole batch.
  const std::int64_t count = std::min(t, rows);
  parallel_for(count, row_grain(heads * d * std::max<std::int64_t>(1, rows / std::max<std::int64_t>(1, t))),
               [&](std::int64_t begin, std::int64_t end) {
                 if (dtype == f64) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     for (std::int64_t row = r; row < rows; row += t) {
                       for (std::int64_t h = row * heads; h < (row + 1) * heads; ++h) {
                         ref::rope(static_cast<const double*>(x) + h * d, static_cast<double*>(y) + h * d, inv_freq, positions ? positions[r] : r, d,
                                   interleaved, sign);
                       }
                     }
                   }
                   return;
                 }
                 const std::int64_t table = (d + 31) / 32 * 32;  // whole vectors are written
                 const Block angles = queue.scratch(2 * table * sizeof(float));
                 HWY_DYNAMIC_DISPATCH(RopePositions)
                 (dtype, x, y, inv_freq, positions, rows, t, heads, d, interleaved, sign, angles.as<float>(), table, begin, end);
               });
}

}  // namespace mezzo::kernels
#endif
