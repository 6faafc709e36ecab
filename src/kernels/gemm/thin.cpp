// thin.cpp - products of few rows: bound by reading the matrix, so each of its rows is read once and meets every row of A while it is in the first
// cache. Sums in f32 (products too, but for the native bf16 dot), one rounding on store. Each element is summed in the same order whatever the number
// of threads.
#include "kernels/gemm/thin.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/thin.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "core/fail.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/gemm/dot_bf16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::VFromD<D>;
constexpr std::int64_t kGroup = 64;  // columns of C whose sums are stored together

HWY_INLINE float Dot(const float* x, const float* y, std::int64_t n) {
  const D d;
  const V sum = Fold(
      d, static_cast<std::size_t>(n), hn::Zero(d),
      [&](V acc, std::size_t i, auto access) MEZZO_BODY { return hn::MulAdd(access.Load(d, x + i), access.Load(d, y + i), acc); },
      [](V a, V b) MEZZO_BODY { return hn::Add(a, b); });
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// c[j] = sums[j] + bias[j] + residual[j] for a few columns of a row.
template <class T> void Store(const Gemm& g, const float* sums, std::int64_t row, std::int64_t column, std::int64_t n, void* c) {
  const D d;
  const std::int64_t at = row * g.ldc + column;
  ForEachVector(d, static_cast<std::size_t>(n), [&](std::size_t i, auto access) MEZZO_BODY {
    V v = access.Load(d, sums + i);
    if (g.bias)
      v = hn::Add(v, g.bias_dtype == f32 ? access.Load(d, static_cast<const float*>(g.bias) + column + i)
                                         : access.Load(d, static_cast<const T*>(g.bias) + column + i));
    if (g.residual) v = hn::Add(v, access.Load(d, static_cast<const T*>(g.residual) + at + i));
    access.Store(v, d, static_cast<T*>(c) + at + i);
  });
}

/// Columns [begin, end) of C: rows of w, unpacked to f32 piece by piece. a is (m, k), f32.
template <class T> void Columns(const Gemm& g, const float* a, const ThinMatrix& w, void* c, std::int64_t begin, std::int64_t end) {
  alignas(64) float unpacked[kThinPiece];
  float sums[kThinRows][kGroup];
  for (std::int64_t j = begin; j < end; j += kGroup) {
    const std::int64_t n = std::min(kGroup, end - j);
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t i = 0; i < g.m; ++i) sums[i][r] = 0;
      for (std::int64_t p = 0; p < g.k; p += kThinPiece) {
        const std::int64_t length = std::min(kThinPiece, g.k - p);
        w.unpack(at(w.x, (j + r) * w.row_bytes + p / w.elements * w.bytes, 1), unpacked, length);
        for (std::int64_t i = 0; i < g.m; ++i) sums[i][r] += Dot(a + i * g.k + p, unpacked, length);
      }
    }
    for (std::int64_t i = 0; i < g.m; ++i) Store<T>(g, sums[i], i, j, n, c);
  }
}

// ---- rows of elements, as they are --------------------------------------------------------------------

// A tile of sums: some rows of A by kSide rows of w. Its vectors and the operands' fill the registers.
constexpr std::size_t kSide = 4, kTileRows = HWY_TARGET <= HWY_AVX3 ? 6 : 3;

/// f32 vectors; 16-bit elements are widened as they are loaded.
struct Widened {
  static constexpr std::int64_t kStep = hn::MaxLanes(D());
  template <class W> static HWY_INLINE V Load(const W* p) { return LoadF32(D(), p); }
  template <class W> static HWY_INLINE V Load(const W* p, std::int64_t n) { return LoadF32(D(), p, static_cast<std::size_t>(n)); }
  static HWY_INLINE V Add(V sum, V a, V b) { return hn::MulAdd(a, b, sum); }
};

#if HWY_TARGET == HWY_AVX3
/// Pairs of bf16, by the native dot product.
struct Pairs {
  static constexpr std::int64_t kStep = 2 * hn::MaxLanes(D());
  static HWY_INLINE V Load(const bf16_t* p) { return hn::BitCast(D(), hn::LoadU(hn::Repartition<std::uint16_t, D>(), &p->bits)); }
  static HWY_INLINE V Load(const bf16_t* p, std::int64_t n) {
    const hn::Repartition<std::uint16_t, D> d16;
    return hn::BitCast(D(), hn::MaskedLoad(hn::FirstN(d16, static_cast<std::size_t>(n)), d16, &p->bits));
  }
  static MEZZO_BF16_ATTR HWY_INLINE V Add(V sum, V a, V b) { return DotBf16(sum, a, b); }
};
#endif

// Constant indices only: an array of vectors that a loop indexes would live in memory.
template <class Arithmetic, std::size_t kR, std::size_t... J>
MEZZO_BF16_ATTR HWY_INLINE void AddRow(V (&sums)[kR], V a, const V (&w)[kR], std::index_sequence<J...>) {
  ((sums[J] = Arithmetic::Add(sums[J], a, w[J])), ...);
}

/// Keeps what was loaded in its register: GCC 12 loads it again for each row of A, and a vector of w mostly lies across two lines.
HWY_INLINE void Hold([[maybe_unused]] V& v) {
#if HWY_TARGET <= HWY_AVX3
  asm("" : "+v"(v.raw));
#endif
}

/// One step along k; `n...`: the elements left in the last one.
template <class Arithmetic, std::size_t kM, std::size_t kR, class A, class W, std::size_t... I, std::size_t... J, class... N>
MEZZO_BF16_ATTR HWY_INLINE void AddStep(V (&sums)[kM][kR], const A* a, std::int64_t lda, const W* w, std::int64_t ldw, std::index_sequence<I...>,
                                        std::index_sequence<J...> all, N... n) {
  V columns[kR] = {Arithmetic::Load(w + static_cast<std::int64_t>(J) * ldw, n...)...};
  if constexpr (kM > 1) (Hold(columns[J]), ...);
  (AddRow<Arithmetic>(sums[I], Arithmetic::Load(a + static_cast<std::int64_t>(I) * lda, n...), columns, all), ...);
}

#if HWY_TARGET != HWY_SCALAR
/// The sums of the four-lane blocks of a vector.
template <class Dv> HWY_INLINE hn::Vec<hn::CappedTag<float, 4>> SumOfBlocks(Dv d, hn::Vec<Dv> v) {
  if constexpr (hn::MaxLanes(Dv()) <= 4) {
    return v;
  } else {
    const hn::Half<Dv> half;
    return SumOfBlocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}
#endif

/// out[0..3] = the sums of each vector's lanes, always in one order.
HWY_INLINE void SumLanes(const V (&v)[kSide], float* out) {
#if HWY_TARGET == HWY_SCALAR
  for (std::size_t j = 0; j < kSide; ++j) out[j] = hn::GetLane(v[j]);
#else
  const D d;
  const hn::RepartitionToWide<D> wide;
  const V v01 = hn::Add(hn::InterleaveLower(d, v[0], v[1]), hn::InterleaveUpper(d, v[0], v[1]));
  const V v23 = hn::Add(hn::InterleaveLower(d, v[2], v[3]), hn::InterleaveUpper(d, v[2], v[3]));
  const auto a = hn::BitCast(wide, v01), b = hn::BitCast(wide, v23);
  const V all = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, a, b)), hn::BitCast(d, hn::InterleaveUpper(wide, a, b)));
  hn::StoreU(SumOfBlocks(d, all), hn::CappedTag<float, 4>(), out);
#endif
}

template <std::size_t kM, std::size_t kR, std::size_t... I> HWY_INLINE void SumTile(const V (&sums)[kM][kR], float* out, std::index_sequence<I...>) {
  const auto sum_row = [](const V(&row)[kR], float* to) HWY_ATTR {
    if constexpr (kR == kSide) {
      SumLanes(row, to);
    } else {
      float all[kSide];
      const V zero = hn::Zero(D());
      SumLanes({row[0], zero, zero, zero}, all);
      to[0] = all[0];
    }
  };
  (sum_row(sums[I], out + I * kGroup), ...);
}

/// Where the next kSide rows of w are fetched to while the last ones are multiplied, in the order in which they lie in memory: the hardware follows
/// that order, but not four rows at a time.
enum class Fetch { none, l1, l2 };
Fetch FetchOf(std::int64_t rows, std::int64_t row_bytes) {
  if (rows * row_bytes <= cpu_info().l2) return Fetch::none;
  return row_bytes * static_cast<std::int64_t>(kSide) <= 12 << 10 ? Fetch::l1 : Fetch::l2;  // measured
}
template <std::size_t kElements, class W> HWY_INLINE void Prefetch(const W* p, Fetch fetch) {
  constexpr std::size_t kLine = 64 / sizeof(W);
  if (fetch == Fetch::l1) {
    for (std::size_t i = 0; i < kElements; i += kLine) __builtin_prefetch(p + i, 0, 3);
  } else if (fetch == Fetch::l2) {
    for (std::size_t i = 0; i < kElements; i += kLine) __builtin_prefetch(p + i, 0, 2);
  }
}

/// out (kM, kGroup) = kM rows of a by kR rows of w.
template <class Arithmetic, std::size_t kM, std::size_t kR, class A, class W>
MEZZO_BF16_ATTR HWY_INLINE void TileSums(const A* a, std::int64_t lda, const W* w, std::int64_t ldw, std::int64_t k, Fetch fetch, float* out) {
  constexpr auto kRowsOfA = std::make_index_sequence<kM>();
  constexpr auto kRowsOfW = std::make_index_sequence<kR>();
  V sums[kM][kR];
  [&sums]<std::size_t... E>(std::index_sequence<E...>) HWY_ATTR { ((sums[E / kR][E % kR] = hn::Zero(D())), ...); }
  (std::make_index_sequence<kM * kR>());
  const W* const next = w + kSide * ldw;
  std::int64_t p = 0;
  for (; p + Arithmetic::kStep <= k; p += Arithmetic::kStep) {
    Prefetch<kR * Arithmetic::kStep>(next + static_cast<std::int64_t>(kR) * p, fetch);
    AddStep<Arithmetic>(sums, a + p, lda, w + p, ldw, kRowsOfA, kRowsOfW);
  }
  if (p < k) AddStep<Arithmetic>(sums, a + p, lda, w + p, ldw, kRowsOfA, kRowsOfW, k - p);
  SumTile(sums, out, kRowsOfA);
}

// ---- one row of w after the other: a matrix of the last cache or of memory is then read in its order, which the hardware follows by itself
// ---------

// Rows of A up to which that is faster; parts of a sum along k, so that one addition does not wait for the last.
constexpr std::size_t kRowByRow = 1, kParts = 4;

template <class Arithmetic, class A, std::size_t... P>
MEZZO_BF16_ATTR HWY_INLINE void AddParts(V (&sums)[sizeof...(P)], const A* a, const V (&w)[sizeof...(P)], std::index_sequence<P...>) {
  ((sums[P] = Arithmetic::Add(sums[P], Arithmetic::Load(a + static_cast<std::int64_t>(P) * Arithmetic::kStep), w[P])), ...);
}

template <class Arithmetic, std::size_t kM, class A, class W, std::size_t... I, std::size_t... P>
MEZZO_BF16_ATTR HWY_INLINE void AddStretch(V (&sums)[kM][kParts], const A* a, std::int64_t lda, const W* w, std::index_sequence<I...>,
                                           std::index_sequence<P...> all) {
  const V row[kParts] = {Arithmetic::Load(w + static_cast<std::int64_t>(P) * Arithmetic::kStep)...};
  (AddParts<Arithmetic>(sums[I], a + static_cast<std::int64_t>(I) * lda, row, all), ...);
}

template <class Arithmetic, std::size_t kM, class A, class W, std::size_t... I, class... N>
MEZZO_BF16_ATTR HWY_INLINE void AddRest(V (&sums)[kM][kParts], const A* a, std::int64_t lda, const W* w, std::index_sequence<I...>, N... n) {
  const V row = Arithmetic::Load(w, n...);
  ((sums[I][0] = Arithmetic::Add(sums[I][0], Arithmetic::Load(a + static_cast<std::int64_t>(I) * lda, n...), row)), ...);
}

/// sums[i][column] = row i of a by a row of w.
template <class Arithmetic, std::size_t kM, class A, class W, std::size_t... I>
MEZZO_BF16_ATTR HWY_INLINE void RowSums(const A* a, std::int64_t lda, const W* w, std::int64_t k, V (&out)[kM][kSide], std::size_t column,
                                        std::index_sequence<I...> rows) {
  constexpr auto kAll = std::make_index_sequence<kParts>();
  constexpr std::int64_t kStep = Arithmetic::kStep, kStretch = static_cast<std::int64_t>(kParts) * kStep;
  V sums[kM][kParts];
  [&sums]<std::size_t... E>(std::index_sequence<E...>) HWY_ATTR { ((sums[E / kParts][E % kParts] = hn::Zero(D())), ...); }
  (std::make_index_sequence<kM * kParts>());
  std::int64_t p = 0;
  for (; p + kStretch <= k; p += kStretch) AddStretch<Arithmetic>(sums, a + p, lda, w + p, rows, kAll);
  for (; p + kStep <= k; p += kStep) AddRest<Arithmetic>(sums, a + p, lda, w + p, rows);
  if (p < k) AddRest<Arithmetic>(sums, a + p, lda, w + p, rows, k - p);
  ((out[I][column] = hn::Add(hn::Add(sums[I][0], sums[I][1]), hn::Add(sums[I][2], sums[I][3]))), ...);
}

/// out (kM, kGroup) = kM rows of a by kSide rows of w.
template <class Arithmetic, std::size_t kM, class A, class W, std::size_t... J>
MEZZO_BF16_ATTR HWY_INLINE void RowByRow(const A* a, std::int64_t lda, const W* w, std::int64_t ldw, std::int64_t k, float* out,
                                         std::index_sequence<J...>) {
  constexpr auto kRowsOfA = std::make_index_sequence<kM>();
  V sums[kM][kSide];
  (RowSums<Arithmetic>(a, lda, w + static_cast<std::int64_t>(J) * ldw, k, sums, J, kRowsOfA), ...);
  SumTile(sums, out, kRowsOfA);
}

/// `rows` rows of w, at most kGroup, in one pass over them.
template <class Arithmetic, std::size_t kM, class A, class W> MEZZO_BF16_ATTR void GroupSums(const void* a, std::int64_t lda, const void* w,
                                                                                             std::int64_t ldw, std::int64_t k, std::int64_t rows,
                                                                                             Fetch fetch, float* out) {
  const A* x = static_cast<const A*>(a);
  const W* y = static_cast<const W*>(w);
  std::int64_t r = 0;
  if constexpr (kM <= kRowByRow) {
    if (fetch != Fetch::none)
      for (constexpr std::int64_t kR = kSide; r + kR <= rows; r += kR)
        RowByRow<Arithmetic, kM>(x, lda, y + r * ldw, ldw, k, out + r, std::make_index_sequence<kSide>());
  }
  for (constexpr std::int64_t kR = kSide; r + kR <= rows; r += kR) TileSums<Arithmetic, kM, kSide>(x, lda, y + r * ldw, ldw, k, fetch, out + r);
  for (; r < rows; ++r) TileSums<Arithmetic, kM, 1>(x, lda, y + r * ldw, ldw, k, fetch, out + r);
}

using RunGroup = void (*)(const void*, std::int64_t, const void*, std::int64_t, std::int64_t, std::int64_t, Fetch, float*);
template <class Arithmetic, class A, class W> RunGroup PickRows(std::int64_t m) {
  static constexpr auto kTable = []<std::size_t... M>(std::index_sequence<M...>) {
    return std::array<RunGroup, sizeof...(M)>{GroupSums<Arithmetic, M + 1, A, W>...};
  }
  (std::make_index_sequence<kTileRows>());
  return kTable[static_cast<std::size_t>(m - 1)];
}

/// The sums of m <= kTileRows rows of A: of f32, or where that is `native` of bf16.
RunGroup PickGroup(std::int64_t m, Dtype w, [[maybe_unused]] bool native) {
#if HWY_TARGET == HWY_AVX3
  if (native) return PickRows<Pairs, bf16_t, bf16_t>(m);
#endif
  return w == f32 ? PickRows<Widened, float, float>(m) : w == bf16 ? PickRows<Widened, float, bf16_t>(m) : PickRows<Widened, float, f16_t>(m);
}

/// The same as Columns for elements that are not unpacked; `a` (m, k) has rows of lda elements, f32 or native bf16.
template <class T>
void DirectColumns(const Gemm& g, const void* a, std::int64_t lda, bool native, const ThinMatrix& w, void* c, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kMost = kTileRows;
  const std::int64_t passes = (g.m + kMost - 1) / kMost, ldw = w.row_bytes / w.bytes;
  const Fetch fetch = FetchOf(g.n, w.row_bytes);
  alignas(64) float sums[kDirectRows * kGroup];
  for (std::int64_t j = begin; j < end; j += kGroup) {
    const std::int64_t n = std::min(kGroup, end - j);
    for (std::int64_t pass = 0; pass < passes; ++pass) {  // of nearly equal height; after the first w is in cache
      const Range rows = part_range(g.m, static_cast<int>(passes), static_cast<int>(pass));
      const RunGroup run = PickGroup(rows.end - rows.begin, w.dtype, native);
      run(at(a, rows.begin * lda, native ? sizeof(bf16_t) : sizeof(float)), lda, at(w.x, j * w.row_bytes, 1), ldw, g.k, n,
          pass == 0 ? fetch : Fetch::none, sums + rows.begin * kGroup);
    }
    for (std::int64_t i = 0; i < g.m; ++i) Store<T>(g, sums + i * kGroup, i, j, n, c);
  }
}

/// Rows [begin, end) of C = A op(B) with few columns: the same with A as the matrix and `few` (n, k) as the rows; C is the transpose of the sums.
template <class T> void DirectRows(const Gemm& g, const void* few, bool native, const ThinMatrix& a, void* c, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kMost = kTileRows, kRows = kSide;
  const std::int64_t passes = (g.n + kMost - 1) / kMost, lda = a.row_bytes / a.bytes;
  const Fetch fetch = FetchOf(g.m, a.row_bytes);
  const D d;
  const hn::RebindToSigned<D> di;
  const auto stride = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<std::int32_t>(kGroup)));
  alignas(64) float sums[(kThinColumns + hn::MaxLanes(D())) * kGroup], row[kThinColumns + hn::MaxLanes(D())];
  for (std::int64_t r = begin; r < end; r += kRows) {
    const std::int64_t n = std::min(kRows, end - r);
    for (std::int64_t pass = 0; pass < passes; ++pass) {
      const Range of = part_range(g.n, static_cast<int>(passes), static_cast<int>(pass));
      const RunGroup run = PickGroup(of.end - of.begin, a.dtype, native);
      run(at(few, of.begin * g.k, native ? sizeof(bf16_t) : sizeof(float)), g.k, at(a.x, r * a.row_bytes, 1), lda, g.k, n,
          pass == 0 ? fetch : Fetch::none, sums + of.begin * kGroup);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < g.n; j += static_cast<std::int64_t>(hn::MaxLanes(d)))
        hn::Store(hn::GatherIndex(d, sums + j * kGroup + i, stride), d, row + j);
      Store<T>(g, row, r + i, 0, g.n, c);
    }
  }
}

using RunRows = void (*)(const Gemm&, const void*, bool, const ThinMatrix&, void*, std::int64_t, std::int64_t);
RunRows PickRowsOf(Dtype c) { return c == f32 ? DirectRows<float> : c == bf16 ? DirectRows<bf16_t> : DirectRows<f16_t>; }

using RunDirect = void (*)(const Gemm&, const void*, std::int64_t, bool, const ThinMatrix&, void*, std::int64_t, std::int64_t);
RunDirect PickDirect(Dtype c) { return c == f32 ? DirectColumns<float> : c == bf16 ? DirectColumns<bf16_t> : DirectColumns<f16_t>; }

using RunColumns = void (*)(const Gemm&, const float*, const ThinMatrix&, void*, std::int64_t, std::int64_t);
RunColumns PickColumns(Dtype c) { return c == f32 ? Columns<float> : c == bf16 ? Columns<bf16_t> : Columns<f16_t>; }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {

HWY_EXPORT(PickColumns);
HWY_EXPORT(PickDirect);
HWY_EXPORT(PickRowsOf);

bool is_thin(const Gemm& g, std::int64_t rows) {
  return g.m <= rows && !g.trans_a && g.trans_b && g.batch == 1 && g.alpha == 1 && g.beta == 0 && (g.a == f32 || is_16bit(g.a));
}

void thin_gemm(Queue& queue, const Gemm& g, const void* a, const ThinMatrix& w, void* c) {
  MEZZO_CHECK(is_thin(g, w.unpack ? kThinRows : kDirectRows) && kThinPiece % w.elements == 0 && g.k % w.elements == 0);
  const bool native = !w.unpack && g.a == bf16 && w.dtype == bf16 && native_gemm(bf16);
  const bool as_is = native || (g.a == f32 && (g.lda == g.k || g.m == 1));
  const Block widened = as_is ? Block() : queue.scratch(static_cast<std::size_t>(g.m * g.k) * sizeof(float));
  if (DryRun::active()) return;
  if (!as_is) {
    const Conversion widen = conversion(g.a, f32);
    for (std::int64_t i = 0; i < g.m; ++i) widen(at(a, i * g.lda, size_of(g.a)), widened.as<float>() + i * g.k, g.k);
  }
  const void* const rows = as_is ? a : widened.as<void>();
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, g.k));
  if (w.unpack) {
    const auto run = HWY_DYNAMIC_DISPATCH(PickColumns)(g.c);
    return parallel_for(
        g.n, grain, [&](std::int64_t begin, std::int64_t end) { run(g, static_cast<const float*>(rows), w, c, begin, end); }, kAlign / 4);
  }
  const auto run = HWY_DYNAMIC_DISPATCH(PickDirect)(g.c);
  const std::int64_t lda = native ? g.lda : g.k;
  parallel_for(
      g.n, grain, [&](std::int64_t begin, std::int64_t end) { run(g, rows, lda, native, w, c, begin, end); }, kAlign / 4);
}

bool is_thin_in_columns(const Gemm& g) {
  return g.n <= kThinColumns && !g.trans_a && g.k > 0 && g.batch == 1 && g.alpha == 1 && g.beta == 0 && (g.a == f32 || is_16bit(g.a));
}

void thin_columns_gemm(Queue& queue, const Gemm& g, const void* a, const void* b, void* c) {
  MEZZO_CHECK(is_thin_in_columns(g));
  const bool native = g.a == bf16 && native_gemm(bf16);
  const Dtype few = native ? bf16 : f32;
  const Block rows = queue.scratch(static_cast<std::size_t>(g.n * g.k) * size_of(few));  // (n, k): op(B) transposed
  Strided s;
  s.dims = 2;
  s.operands = 2;
  s.size = {g.n, g.k};
  s.stride[0] = {g.k, 1};
  s.stride[1] = g.trans_b ? std::array<std::int64_t, kMaxDims>{g.ldb, 1} : std::array<std::int64_t, kMaxDims>{1, g.ldb};
  copy(queue, g.b, few, b, rows.as<void>(), s);
  if (DryRun::active()) return;
  const auto run = HWY_DYNAMIC_DISPATCH(PickRowsOf)(g.c);
  const auto bytes = static_cast<std::int64_t>(size_of(g.a));
  const ThinMatrix matrix{a, g.lda * bytes, 1, bytes, nullptr, g.a};
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (g.k * g.n));
  parallel_for(
      g.m, grain, [&](std::int64_t begin, std::int64_t end) { run(g, rows.as<void>(), native, matrix, c, begin, end); }, kAlign / 4);
}

}  // namespace mezzo::kernels
#endif
