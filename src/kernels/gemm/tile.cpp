// tile.cpp - packing, f32 multiplication and store of tiles, for each instruction set.
#include "kernels/gemm/tile.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <mezzo/runtime.h>
#include "kernels/cpu/isa.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/tile.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/convert-inl.h"
#include "kernels/cpu/transpose-inl.h"
#include "kernels/gemm/dot_bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr std::size_t kLanes = hn::MaxLanes(D());
using D4 = hn::CappedTag<float, 4>;

// The sums of a tile fill the registers but for one row of B and one element of A. Rows are a multiple of four, for the transpose.
#if HWY_TARGET <= HWY_AVX3
constexpr std::size_t kRows = 12, kVecs = 2;  // 24 of 32
#elif HWY_TARGET <= HWY_AVX2
constexpr std::size_t kRows = 4, kVecs = 3;  // 12 of 16
#elif HWY_TARGET == HWY_SCALAR
constexpr std::size_t kRows = 4, kVecs = 4;
#else
constexpr std::size_t kRows = 4, kVecs = 2;  // 8 of 16: without FMA the product needs one more
#endif
constexpr std::size_t kCols = kVecs * kLanes;

// ---- packing -----------------------------------------------------------------------------------------

constexpr std::int64_t kAhead = 16;  // steps of k that a row is fetched ahead: rows lie too far apart for the hardware to see it
constexpr std::int64_t kStrip = 64;  // steps of k for all panels before the next: as many pages as the first TLB holds

#if HWY_TARGET != HWY_SCALAR
/// Units along k from x on: converted, or (pairs) as they are.
template <bool kPairs, class Dv, class T> HWY_INLINE hn::Vec<Dv> load_units(Dv d, const T* x) {
  if constexpr (kPairs) {
    return hn::BitCast(d, hn::LoadU(hn::Repartition<std::uint16_t, Dv>(), &x->bits));
  } else {
    return LoadF32(d, x);
  }
}

/// out[p][0..3] = unit p of rows r[0..3], for as many p as d has lanes.
template <bool kPairs, class Dv, class T>
HWY_INLINE void transpose(Dv d, const T* const (&r)[4], std::int64_t offset, float* out, std::size_t width) {
  TransposeRows(d, load_units<kPairs>(d, r[0] + offset), load_units<kPairs>(d, r[1] + offset), load_units<kPairs>(d, r[2] + offset),
                load_units<kPairs>(d, r[3] + offset), out, width);
}
#endif

/// One unit along k; a `last` pair has a first element only.
template <bool kPairs, class T> HWY_INLINE float load_unit(const T* x, bool last) {
  if constexpr (kPairs) {
    return std::bit_cast<float>(x[0].bits | (last ? 0u : static_cast<std::uint32_t>(x[1].bits) << 16));
  } else {
    return static_cast<float>(*x);
  }
}

/// One panel of an operand whose k is contiguous: x (count, k), a transpose.
template <bool kPairs, std::size_t kWidth, class T>
void pack_transposed(const T* x, std::int64_t ld, std::int64_t count, std::int64_t k, float* out) {
  constexpr std::int64_t kUnit = kPairs ? 2 : 1;
  const std::int64_t whole = k / kUnit;
  for (std::int64_t i = 0; i < count; i += 4, out += 4) {
    const T* r[4];
    for (std::int64_t j = 0; j < 4; ++j) r[j] = x + std::min(i + j, count - 1) * ld;
    std::int64_t p = 0;
#if HWY_TARGET != HWY_SCALAR
    for (constexpr std::int64_t kN = kLanes; p + kN <= whole; p += kN) {
      for (int j = 0; j < 4; ++j) __builtin_prefetch(r[j] + 4 * ld + p * kUnit);
      transpose<kPairs>(D(), r, p * kUnit, out + p * kWidth, kWidth);
    }
    for (; p + 4 <= whole; p += 4) transpose<kPairs>(D4(), r, p * kUnit, out + p * kWidth, kWidth);
    if (p < whole && whole >= 4) {
      transpose<kPairs>(D4(), r, (whole - 4) * kUnit, out + (whole - 4) * kWidth, kWidth);
      p = whole;
    }
#endif
    for (; p * kUnit < k; ++p) {
      for (int j = 0; j < 4; ++j) out[p * kWidth + j] = load_unit<kPairs>(r[j] + p * kUnit, p >= whole);
    }
  }
}

/// A strip of one panel of an operand whose k is not contiguous: x (k, count), rows copied.
template <bool kPairs, std::size_t kWidth, class Dv, class T>
HWY_INLINE void pack_rows(Dv d, const T* x, std::int64_t ld, std::int64_t count, std::int64_t k, float* out) {
  const std::int64_t n = hn::MaxLanes(d);
  constexpr std::int64_t kUnit = kPairs ? 2 : 1;
  for (std::int64_t p = 0; p < k; p += kUnit, x += kUnit * ld, out += kWidth) {
    for (std::int64_t u = 0; u < kUnit; ++u) __builtin_prefetch(x + (kAhead + u) * ld);
    for (std::int64_t i = 0; i < count; i += n) {
      const std::size_t valid = std::min(n, count - i);
      if constexpr (kPairs) {
        const hn::Rebind<std::uint16_t, Dv> d16;
        const hn::RebindToUnsigned<Dv> du;
        const bool second = p + 1 < k;
        auto lo = hn::Zero(du), hi = lo;
        if (valid == static_cast<std::size_t>(n)) {
          lo = hn::PromoteTo(du, hn::LoadU(d16, &x[i].bits));
          if (second) hi = hn::PromoteTo(du, hn::LoadU(d16, &x[i + ld].bits));
        } else {  // LoadF32 leaves bf16 bits in the upper halves
          lo = hn::ShiftRight<16>(hn::BitCast(du, LoadF32(d, x + i, valid)));
          if (second) hi = hn::ShiftRight<16>(hn::BitCast(du, LoadF32(d, x + i + ld, valid)));
        }
        hn::StoreU(hn::BitCast(d, hn::Or(lo, hn::ShiftLeft<16>(hi))), d, out + i);
      } else {
        hn::StoreU(valid == static_cast<std::size_t>(n) ? LoadF32(d, x + i) : LoadF32(d, x + i, valid), d, out + i);
      }
    }
  }
}

template <bool kPairs, std::size_t kWidth, class Dv, class T>
void pack(const Operand& o, std::int64_t count, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t units, float* out) {
  constexpr std::int64_t kUnit = kPairs ? 2 : 1, kW = kWidth;
  const T* x = static_cast<const T*>(o.x);
  const std::int64_t panel = units * kW;  // floats
  if (o.k_contiguous) {
    for (std::int64_t q = begin; q < end; ++q)
      pack_transposed<kPairs, kWidth>(x + q * kW * o.ld, o.ld, std::min(kW, count - q * kW), k, out + (q - begin) * panel);
    return;
  }
  for (std::int64_t p = 0; p < k; p += kStrip) {
    for (std::int64_t q = begin; q < end; ++q) {
      pack_rows<kPairs, kWidth>(Dv(), x + p * o.ld + q * kW, o.ld, std::min(kW, count - q * kW), std::min(kStrip, k - p),
                                out + (q - begin) * panel + p / kUnit * kW);
    }
  }
}

template <std::size_t kWidth, class Dv>
void pack_widened(const Operand& o, std::int64_t count, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t units, void* out) {
  float* to = static_cast<float*>(out);
  switch (o.dtype) {
    case Dtype::f16: return pack<false, kWidth, Dv, f16_t>(o, count, k, begin, end, units, to);
    case Dtype::bf16: return pack<false, kWidth, Dv, bf16_t>(o, count, k, begin, end, units, to);
    default: return pack<false, kWidth, Dv, float>(o, count, k, begin, end, units, to);
  }
}

// ---- sums --------------------------------------------------------------------------------------------

/// One product and sum a lane: f32, fused where the instruction set can.
struct MulAddF32 {
  static HWY_INLINE V add(V sum, float a, V b) { return hn::MulAdd(hn::Set(D(), a), b, sum); }
};

#if HWY_TARGET == HWY_AVX3
/// Two products and sums a lane.
struct PairsBf16 {
  static MEZZO_BF16_ATTR HWY_INLINE V add(V sum, float a, V b) { return DotBf16(sum, hn::Set(D(), a), b); }
};
#endif

// Constant indices only: an array of vectors that a loop indexes would live in memory.
template <class Arithmetic, std::size_t kV, std::size_t... J>
MEZZO_BF16_ATTR HWY_INLINE void add_row(V (&sums)[kV], float a, const V (&b)[kV], std::index_sequence<J...>) {
  ((sums[J] = Arithmetic::add(sums[J], a, b[J])), ...);
}

template <class Arithmetic, std::size_t kM, std::size_t kV, std::size_t... I, std::size_t... J>
MEZZO_BF16_ATTR HWY_INLINE void add_outer(V (&sums)[kM][kV], const float* a, const float* b, std::index_sequence<I...>,
                                          std::index_sequence<J...> all) {
  const V row[kV] = {hn::LoadU(D(), b + J * kLanes)...};
  (add_row<Arithmetic>(sums[I], a[I], row, all), ...);
}

template <std::size_t kM, std::size_t kV, std::size_t... E> HWY_INLINE void clear(V (&sums)[kM][kV], std::index_sequence<E...>) {
  ((sums[E / kV][E % kV] = hn::Zero(D())), ...);
}

// ---- store -------------------------------------------------------------------------------------------

template <class T, bool kWhole>
HWY_INLINE void finish_vector(V v, const Finish& f, const float* add, const T* residual, T* c, std::int64_t j, std::size_t n = kLanes) {
  const D d;
  const auto load = [&](const auto* p) HWY_ATTR { return kWhole ? LoadF32(d, p + j) : LoadF32(d, p + j, n); };
  v = hn::Mul(v, hn::Set(d, f.alpha));
  if (add) v = hn::Add(v, load(add));
  if (f.beta != 0) v = hn::MulAdd(hn::Set(d, f.beta), load(c), v);
  if (f.bias) v = hn::Add(v, load(f.bias));
  if (residual) v = hn::Add(v, load(residual));
  if constexpr (kWhole) StoreF32(v, d, c + j);
  else StoreF32(v, d, c + j, n);
}

template <class T> void finish(std::int64_t m, std::int64_t n, const float* HWY_RESTRICT sums, const Finish f) {
  const D d;
  constexpr std::int64_t kStep = kLanes;
  const float* add = f.add;
  const T* residual = static_cast<const T*>(f.residual);
  T* c = static_cast<T*>(f.c);
  for (std::int64_t i = 0; i < m; ++i) {
    std::int64_t j = 0;
    for (; j + kStep <= n; j += kStep) finish_vector<T, true>(hn::Load(d, sums + j), f, add, residual, c, j);
    if (j < n) finish_vector<T, false>(hn::Load(d, sums + j), f, add, residual, c, j, n - j);
    sums += kCols;
    c += f.ldc;
    if (add) add += f.ld_add;
    if (residual) residual += f.ldc;
  }
}

void join(std::int64_t rows, std::int64_t cols, const float* sums, int pieces, float beta, float* c, std::int64_t ldc) {
  const D d;
  constexpr std::int64_t kStep = kLanes;
  for (std::int64_t i = 0; i < rows; ++i, sums += cols, c += ldc) {
    for (std::int64_t j = 0; j < cols; j += kStep) {
      const std::size_t n = std::min(kStep, cols - j);
      V v = LoadF32(d, sums + j, n);
      for (int p = 1; p < pieces; ++p) v = hn::Add(v, LoadF32(d, sums + p * rows * cols + j, n));
      if (beta != 0) v = hn::MulAdd(hn::Set(d, beta), LoadF32(d, c + j, n), v);
      StoreF32(v, d, c + j, n);
    }
  }
}

// ---- tiles -------------------------------------------------------------------------------------------

/// Sums of an Arithmetic rounded to C.
template <class Arithmetic, bool kAdd, class T> MEZZO_BF16_ATTR HWY_INLINE void store_sums(V v, T* to) {
  const D d;
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<Arithmetic, PairsBf16> && std::is_same_v<T, bf16_t> && !kAdd) {
    // The instruction takes denormals for zero; the dot product leaves none.
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(v.raw));
    return;
  }
#endif
  StoreF32(kAdd ? hn::Add(v, LoadF32(d, to)) : v, d, to);
}

template <class Arithmetic, bool kAdd, class T, std::size_t... E>
MEZZO_BF16_ATTR HWY_INLINE void store(const V (&sums)[kRows][kVecs], T* c, std::int64_t ldc, std::index_sequence<E...>) {
  (store_sums<Arithmetic, kAdd>(sums[E / kVecs][E % kVecs], c + E / kVecs * ldc + E % kVecs * kLanes), ...);
}

/// The rows of the tile of C that comes next. (The hardware does not follow a dozen rows at a time.)
struct Next {
  const char* row;
  std::int64_t stride, bytes, rows;

  Next(const void* next, std::int64_t ldc, std::int64_t size)
      : row(static_cast<const char*>(next)), stride(ldc * size), bytes(std::int64_t{kCols} * size), rows(next ? kRows : 0) {}
  HWY_INLINE void fetch() {
    // The last byte of each 64, or of the row: where rows begin within a line, the line before is this tile's.
    for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + std::min(at + 63, bytes - 1), 1);
    row += stride;
  }
};

/// sums = the product of a panel of A and one of B. A row of C is fetched at each of the first steps, where there are instructions to spare; the rows
/// for which there are no steps, before.
template <class Arithmetic, std::size_t kM, std::size_t kV>
MEZZO_BF16_ATTR HWY_INLINE void multiply(V (&sums)[kM][kV], std::int64_t units, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, Next next) {
  constexpr std::make_index_sequence<kM> rows;
  constexpr std::make_index_sequence<kV> vectors;
  clear(sums, std::make_index_sequence<kM * kV>());
  for (; next.rows > units; --next.rows) next.fetch();
  units -= next.rows;
  for (; next.rows != 0; --next.rows, a += kRows, b += kCols) {
    next.fetch();
    add_outer<Arithmetic>(sums, a, b, rows, vectors);
  }
  for (; units != 0; --units, a += kRows, b += kCols) add_outer<Arithmetic>(sums, a, b, rows, vectors);
}

/// A whole tile that C takes as it is, or is added to, from the registers. (Anything more here costs the loop registers.)
template <class Arithmetic, bool kAdd, class T>
MEZZO_BF16_ATTR void plain_tile(std::int64_t units, const float* a, const float* b, T* HWY_RESTRICT c, std::int64_t ldc, const void* next) {
  V sums[kRows][kVecs];
  multiply<Arithmetic>(sums, units, a, b, Next(next, ldc, sizeof(T)));
  store<Arithmetic, kAdd>(sums, c, ldc, std::make_index_sequence<kRows * kVecs>());
}

template <std::size_t kM, std::size_t kV, std::size_t... E> HWY_INLINE void spill(const V (&sums)[kM][kV], float* out, std::index_sequence<E...>) {
  (hn::StoreU(sums[E / kV][E % kV], D(), out + E / kV * kCols + E % kV * kLanes), ...);
}

/// The same, of any size, into out (kM, kCols).
template <class Arithmetic, std::size_t kM, std::size_t kV>
MEZZO_BF16_ATTR void tile_sums(std::int64_t units, const float* a, const float* b, float* HWY_RESTRICT out, const Next& next) {
  V sums[kM][kV];
  multiply<Arithmetic>(sums, units, a, b, next);
  spill(sums, out, std::make_index_sequence<kM * kV>());
}

using TileSums = void (*)(std::int64_t, const float*, const float*, float*, const Next&);
template <class Arithmetic, std::size_t... E> constexpr std::array<TileSums, sizeof...(E)> sums_of_size(std::index_sequence<E...>) {
  return {tile_sums<Arithmetic, E / kVecs + 1, E % kVecs + 1>...};
}

template <class Arithmetic, class T> void tile(int m, int n, std::int64_t units, const float* a, const float* b, const Finish& f) {
  static constexpr auto kSums = sums_of_size<Arithmetic>(std::make_index_sequence<kRows * kVecs>());
  if (m == kRows && n == kCols && f.alpha == 1 && !f.add && !f.bias && !f.residual) {
    if (f.beta == 0) return plain_tile<Arithmetic, false>(units, a, b, static_cast<T*>(f.c), f.ldc, f.next);
    if (f.beta == 1) return plain_tile<Arithmetic, true>(units, a, b, static_cast<T*>(f.c), f.ldc, f.next);
  }
  alignas(64) float sums[kRows * kCols];
  kSums[(m - 1) * kVecs + (n - 1) / kLanes](units, a, b, sums, Next(f.next, f.ldc, sizeof(T)));
  finish<T>(m, n, sums, f);
}

template <class Arithmetic> void tile_to(Dtype c, int m, int n, std::int64_t units, const void* a, const void* b, const Finish& f) {
  const float *fa = static_cast<const float*>(a), *fb = static_cast<const float*>(b);
  switch (c) {
    case Dtype::f16: return tile<Arithmetic, f16_t>(m, n, units, fa, fb, f);
    case Dtype::bf16: return tile<Arithmetic, bf16_t>(m, n, units, fa, fb, f);
    default: return tile<Arithmetic, float>(m, n, units, fa, fb, f);
  }
}

constexpr Tiles kF32 = {kRows, kCols, 1, pack_widened<kRows, D4>, pack_widened<kCols, D>, tile_to<MulAddF32>, join};

#if HWY_TARGET == HWY_AVX3
template <std::size_t kWidth, class Dv>
void pack_pairs(const Operand& o, std::int64_t count, std::int64_t k, std::int64_t begin, std::int64_t end, std::int64_t units, void* out) {
  pack<true, kWidth, Dv, bf16_t>(o, count, k, begin, end, units, static_cast<float*>(out));
}
constexpr Tiles kBf16 = {kRows, kCols, 2, pack_pairs<kRows, D4>, pack_pairs<kCols, D>, tile_to<PairsBf16>, join};
#endif

}  // namespace

const Tiles* tiles([[maybe_unused]] bool bf16_dot) {
#if HWY_TARGET == HWY_AVX3
  if (bf16_dot) return &kBf16;
#endif
  return &kF32;
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {

HWY_EXPORT(tiles);

const Tiles& f32_tiles() {
  static const Tiles* const table = (cap_highway(), HWY_DYNAMIC_DISPATCH(tiles)(false));
  return *table;
}

const Tiles* bf16_tiles() {
  static const Tiles* const table = active_isa() == Isa::avx512_bf16 ? (cap_highway(), HWY_DYNAMIC_DISPATCH(tiles)(true)) : nullptr;
  return table;
}

}  // namespace mezzo::kernels
#endif
