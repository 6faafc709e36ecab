// stream.cpp - products of a few rows with a matrix (k, n) as it lies in memory: input gradients of few tokens, weight gradients with a narrow side.
//
// Packing the matrix, as the packed product does, costs more than a few rows bring back. Here a group of its rows is read side by side, along n, and
// added to all the sums, which stay in the first cache: a block of columns at a time. Sums in f32, in the order of k.
#include "kernels/gemm/stream.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm/stream.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "core/fail.h"
#include "core/parallel.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/gemm/dot_bf16-inl.h"

#ifndef MEZZO_KERNELS_GEMM_STREAM_ONCE
#define MEZZO_KERNELS_GEMM_STREAM_ONCE
namespace mezzo::kernels {
namespace {

/// A product as this file sees it: few rows, packed, times columns [begin, end) of a matrix, into sums.
struct Stream {
  const float* left;  // panels of `panel` rows, as Tiles::pack_a makes them; each `depth` units long, zeros past k
  std::int64_t rows, panel, depth;
  const void* matrix;  // (k, n)
  Dtype dtype;
  std::int64_t ld, k;
  const void* zeros;  // a row for what is missing in the last group
  bool fetch;         // the next group, while this one is multiplied: the matrix does not fit into the second cache
};

/// Where sums go.
struct Target {
  void* c;
  std::int64_t ldc;
  Dtype dtype;
  float beta;
  bool transposed;  // C (columns of the stream, rows)
};

}  // namespace
}  // namespace mezzo::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::VFromD<D>;
constexpr std::int64_t kLanes = hn::MaxLanes(D()), kStep = 2 * kLanes;  // columns at a time
// Units of k in a group, two vectors each: with two sums they fill the registers.
constexpr std::size_t kUnits = 4;

/// One row of the matrix a unit, widened to f32.
struct Widened {
  static constexpr std::size_t kUnits = HWY_NAMESPACE::kUnits, kRows = kUnits;
  template <class W, class... N> static HWY_INLINE void LoadUnit(const W* const* row, std::size_t u, std::int64_t j, V& lower, V& upper, N... n) {
    if constexpr (sizeof...(N) == 0) {
      lower = LoadF32(D(), row[u] + j);
      upper = LoadF32(D(), row[u] + j + kLanes);
    } else {
      const std::int64_t left[] = {n...};
      lower = LoadF32(D(), row[u] + j, static_cast<std::size_t>(std::min(left[0], kLanes)));
      upper = LoadF32(D(), row[u] + j + kLanes, static_cast<std::size_t>(std::max<std::int64_t>(left[0] - kLanes, 0)));
    }
  }
  static HWY_INLINE void Order(float*) {}
  static HWY_INLINE V Add(V sum, V a, V b) { return hn::MulAdd(a, b, sum); }
};

#if HWY_TARGET == HWY_AVX3
/// Two rows a unit, side by side, for the native dot product of bf16 pairs.
struct Pairs {
  static constexpr std::size_t kUnits = 4, kRows = 8;
  template <class... N> static HWY_INLINE void LoadUnit(const bf16_t* const* row, std::size_t u, std::int64_t j, V& lower, V& upper, N... n) {
    const hn::ScalableTag<std::uint16_t> d16;
    const auto load = [&](const bf16_t* p) HWY_ATTR {
      if constexpr (sizeof...(N) == 0) return hn::LoadU(d16, &p->bits);
      else return hn::MaskedLoad(hn::FirstN(d16, static_cast<std::size_t>((n + ...))), d16, &p->bits);
    };
    auto a = load(row[2 * u] + j), b = load(row[2 * u + 1] + j);
    asm("" : "+v"(a.raw), "+v"(b.raw));  // in registers: GCC 12 sends them through the stack, which costs more than the products
    lower = hn::BitCast(D(), hn::InterleaveLower(d16, a, b));
    upper = hn::BitCast(D(), hn::InterleaveUpper(d16, a, b));
  }
  /// What was interleaved within blocks of 128 bits (cheaper than across them) put in order: kStep sums of a row.
  static HWY_INLINE void Order(float* sums) {
    const D d;
    const auto lower = hn::Load(d, sums).raw, upper = hn::Load(d, sums + kLanes).raw;
    const auto first = _mm512_shuffle_f32x4(lower, upper, 0x44), second = _mm512_shuffle_f32x4(lower, upper, 0xee);
    hn::Store(V{_mm512_shuffle_f32x4(first, first, 0xd8)}, d, sums);
    hn::Store(V{_mm512_shuffle_f32x4(second, second, 0xd8)}, d, sums + kLanes);
  }
  static MEZZO_BF16_ATTR HWY_INLINE V Add(V sum, V a, V b) { return DotBf16(sum, a, b); }
};
#endif

/// Two vectors of sums of a row += its units times those of the matrix. Constant indices only: an array that a loop indexes would live in memory.
template <class Arithmetic, std::size_t... U> MEZZO_BF16_ATTR HWY_INLINE void AddRow(const float* left, std::int64_t panel,
                                                                                     const V (&units)[sizeof...(U)][2], float* sums,
                                                                                     std::index_sequence<U...>) {
  const D d;
  V s0 = hn::Load(d, sums), s1 = hn::Load(d, sums + kLanes);
  ((s0 = Arithmetic::Add(s0, hn::Set(d, left[static_cast<std::int64_t>(U) * panel]), units[U][0]),
    s1 = Arithmetic::Add(s1, hn::Set(d, left[static_cast<std::int64_t>(U) * panel]), units[U][1])),
   ...);
  hn::Store(s0, d, sums);
  hn::Store(s1, d, sums + kLanes);
}

/// kStep columns of a group of rows, to all sums; `n...`: how many columns are left, in the last step.
template <class Arithmetic, class W, std::size_t... U, class... N>
MEZZO_BF16_ATTR HWY_INLINE void AddStep(const Stream& s, const W* const* row, std::int64_t unit, std::int64_t j, float* sums, std::int64_t ld_sums,
                                        std::index_sequence<U...> all, N... n) {
  V units[sizeof...(U)][2];
  (Arithmetic::LoadUnit(row, U, j, units[U][0], units[U][1], n...), ...);
  const float* left = s.left + unit * s.panel;
  for (std::int64_t first = 0; first < s.rows; first += s.panel, left += s.depth * s.panel) {
    const std::int64_t rows = std::min(s.panel, s.rows - first);
    for (std::int64_t i = 0; i < rows; ++i, sums += ld_sums) AddRow<Arithmetic>(left + i, s.panel, units, sums, all);
  }
}

/// What an Arithmetic left out of order, put in order.
template <class Arithmetic> void Order(std::int64_t rows, std::int64_t width, float* sums, std::int64_t ld_sums) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < width; j += kStep) Arithmetic::Order(sums + i * ld_sums + j);
  }
}

/// sums (rows, ld_sums) += the product for columns [begin, end).
template <class Arithmetic, class W>
MEZZO_BF16_ATTR void AddColumns(const Stream& s, std::int64_t begin, std::int64_t end, float* sums, std::int64_t ld_sums) {
  constexpr auto kAll = std::make_index_sequence<Arithmetic::kUnits>();
  constexpr std::int64_t kRows = Arithmetic::kRows, kLine = 64 / sizeof(W), kNear = 16 << 10;  // what fits into the first cache
  const std::int64_t width = end - begin;
  const bool whole = width == s.ld;  // the group is one stretch of memory
  const bool near = kRows * width * static_cast<std::int64_t>(sizeof(W)) <= kNear;
  const W* const matrix = static_cast<const W*>(s.matrix) + begin;
  for (std::int64_t p = 0; p < s.k; p += kRows) {
    const W* row[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) row[r] = p + r < s.k ? matrix + (p + r) * s.ld : static_cast<const W*>(s.zeros);
    // The next group in the order of memory, as many lines a step as the step reads.
    const W* next = matrix + (p + kRows) * s.ld;
    std::int64_t at = 0;
    const std::int64_t unit = p / kRows * static_cast<std::int64_t>(Arithmetic::kUnits);
    std::int64_t j = 0;
    for (; j + kStep <= width; j += kStep) {
      if (s.fetch && whole) {
        const W* const ahead = next + j * kRows;
        for (std::int64_t line = 0; line < kRows * kStep; line += kLine) {
          if (near) __builtin_prefetch(ahead + line, 0, 3);
          else __builtin_prefetch(ahead + line, 0, 2);
        }
      } else if (s.fetch) {
        for (std::int64_t line = 0; line < kRows * kStep; line += kLine) {
          if (near) __builtin_prefetch(next + at, 0, 3);
          else __builtin_prefetch(next + at, 0, 2);
          at += kLine;
          if (at >= width) next += s.ld, at = 0;
        }
      }
      AddStep<Arithmetic>(s, row, unit, j, sums + j, ld_sums, kAll);
    }
    if (j < width) AddStep<Arithmetic>(s, row, unit, j, sums + j, ld_sums, kAll, width - j);
  }
  Order<Arithmetic>(s.rows, width, sums, ld_sums);
}

// ---- a matrix in the second cache: sums stay in registers while a strip of columns is read from top to bottom ----------------------------------

// Rows of the left at most; a strip of two steps for up to half as many.
constexpr std::size_t kResidentRows = HWY_TARGET <= HWY_AVX3 ? 12 : 6;

template <class Arithmetic, std::size_t... E>
MEZZO_BF16_ATTR HWY_INLINE void AddUnits(V (&sums)[sizeof...(E)], V x, const V (&units)[sizeof...(E)], std::index_sequence<E...>) {
  ((sums[E] = Arithmetic::Add(sums[E], x, units[E])), ...);
}

/// sums (kM, ld_sums) = the product for kSteps * kStep columns from j on; `n...`: as in AddStep.
template <class Arithmetic, class W, std::size_t... I, std::size_t... S, class... N>
MEZZO_BF16_ATTR HWY_INLINE void Strip(const Stream& s, const W* matrix, std::int64_t j, float* sums, std::int64_t ld_sums, std::index_sequence<I...>,
                                      std::index_sequence<S...>, N... n) {
  constexpr std::size_t kVecs = 2 * sizeof...(S);
  constexpr std::int64_t kRows = Arithmetic::kRows / Arithmetic::kUnits;  // of the matrix in a unit
  constexpr auto kAll = std::make_index_sequence<kVecs>();
  V all[sizeof...(I)][kVecs];
  [&all]<std::size_t... E>(std::index_sequence<E...>) HWY_ATTR { ((all[E / kVecs][E % kVecs] = hn::Zero(D())), ...); }
  (std::make_index_sequence<sizeof...(I) * kVecs>());
  const float* left = s.left;
  for (std::int64_t p = 0; p < s.k; p += kRows, left += s.panel) {
    const W* row[kRows];
    for (std::int64_t r = 0; r < kRows; ++r) row[r] = p + r < s.k ? matrix + (p + r) * s.ld : static_cast<const W*>(s.zeros);
    V units[kVecs];
    (Arithmetic::LoadUnit(row, 0, j + static_cast<std::int64_t>(S) * kStep, units[2 * S], units[2 * S + 1], n...), ...);
    (AddUnits<Arithmetic>(all[I], hn::Set(D(), left[I]), units, kAll), ...);
  }
  const auto store = [&]<std::size_t... E>(std::size_t i, const V(&row)[kVecs], std::index_sequence<E...>) HWY_ATTR {
    (hn::Store(row[E], D(), sums + static_cast<std::int64_t>(i) * ld_sums + j + static_cast<std::int64_t>(E) * kLanes), ...);
  };
  (store(I, all[I], kAll), ...);
}

/// The same as AddColumns for sums that are still zero and kM rows, in one panel.
template <class Arithmetic, class W, std::size_t kM>
MEZZO_BF16_ATTR void ResidentColumns(const Stream& s, std::int64_t begin, std::int64_t end, float* sums, std::int64_t ld_sums) {
  constexpr std::size_t kSteps = 2 * kM <= kResidentRows ? 2 : 1;
  constexpr std::int64_t kWide = static_cast<std::int64_t>(kSteps) * kStep;
  constexpr auto kRows = std::make_index_sequence<kM>();
  const std::int64_t width = end - begin;
  const W* const matrix = static_cast<const W*>(s.matrix) + begin;
  std::int64_t j = 0;
  for (; j + kWide <= width; j += kWide) Strip<Arithmetic>(s, matrix, j, sums, ld_sums, kRows, std::make_index_sequence<kSteps>());
  for (; j + kStep <= width; j += kStep) Strip<Arithmetic>(s, matrix, j, sums, ld_sums, kRows, std::make_index_sequence<1>());
  if (j < width) Strip<Arithmetic>(s, matrix, j, sums, ld_sums, kRows, std::make_index_sequence<1>(), width - j);
  Order<Arithmetic>(static_cast<std::int64_t>(kM), width, sums, ld_sums);
}

// ---- store -----------------------------------------------------------------------------------------------

template <class T> void StoreRow(const float* sums, std::int64_t n, float beta, T* c) {
  const D d;
  ForEachVector(d, static_cast<std::size_t>(n), [&](std::size_t i, auto access) MEZZO_BODY {
    V v = access.Load(d, sums + i);
    if (beta != 0) v = hn::MulAdd(hn::Set(d, beta), access.Load(d, c + i), v);
    access.Store(v, d, c + i);
  });
}

/// C's columns or rows [begin, begin + width) from sums (rows, ld_sums).
template <class T>
void StoreSums(const Target& to, const float* sums, std::int64_t ld_sums, std::int64_t rows, std::int64_t begin, std::int64_t width) {
  const D d;
  T* const c = static_cast<T*>(to.c);
  if (!to.transposed) {
    for (std::int64_t i = 0; i < rows; ++i) StoreRow(sums + i * ld_sums, width, to.beta, c + i * to.ldc + begin);
    return;
  }
  const hn::RebindToSigned<D> di;
  const auto lanes = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<std::int32_t>(ld_sums)));
  alignas(64) float row[kStreamRows + kLanes];
  for (std::int64_t j = 0; j < width; ++j) {
    for (std::int64_t i = 0; i < rows; i += kLanes) hn::Store(hn::GatherIndex(d, sums + i * ld_sums + j, lanes), d, row + i);
    StoreRow(row, rows, to.beta, c + (begin + j) * to.ldc);
  }
}

/// to += from, both (rows, ld) in columns [begin, begin + width).
void AddSums(std::int64_t rows, std::int64_t ld, std::int64_t begin, std::int64_t width, const float* from, float* to) {
  const D d;
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* x = from + i * ld + begin;
    float* y = to + i * ld + begin;
    ForEachVector(d, static_cast<std::size_t>(width),
                  [&](std::size_t j, auto access) MEZZO_BODY { access.Store(hn::Add(access.Load(d, y + j), access.Load(d, x + j)), d, y + j); });
  }
}

using RunAdd = void (*)(const Stream&, std::int64_t, std::int64_t, float*, std::int64_t);
template <class Arithmetic, class W> RunAdd PickRows(std::int64_t resident_rows) {
  static constexpr auto kTable = []<std::size_t... M>(std::index_sequence<M...>) {
    return std::array<RunAdd, sizeof...(M) + 1>{AddColumns<Arithmetic, W>, ResidentColumns<Arithmetic, W, M + 1>...};
  }
  (std::make_index_sequence<kResidentRows>());
  return kTable[static_cast<std::size_t>(resident_rows)];
}
/// For any number of rows, or where `resident` for that many.
RunAdd PickAdd(Dtype t, [[maybe_unused]] bool pairs, std::int64_t rows, bool resident) {
  const std::int64_t few = resident && rows <= static_cast<std::int64_t>(kResidentRows) ? rows : 0;
#if HWY_TARGET == HWY_AVX3
  if (pairs) return PickRows<Pairs, bf16_t>(few);
#endif
  return t == f32 ? PickRows<Widened, float>(few) : t == bf16 ? PickRows<Widened, bf16_t>(few) : PickRows<Widened, f16_t>(few);
}

using RunStore = void (*)(const Target&, const float*, std::int64_t, std::int64_t, std::int64_t, std::int64_t);
RunStore PickStore(Dtype t) { return t == f32 ? StoreSums<float> : t == bf16 ? StoreSums<bf16_t> : StoreSums<f16_t>; }

using RunJoin = void (*)(std::int64_t, std::int64_t, std::int64_t, std::int64_t, const float*, float*);
RunJoin PickJoin() { return AddSums; }

std::int64_t GroupUnits(bool pairs) { return pairs ? 4 : static_cast<std::int64_t>(kUnits); }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {

HWY_EXPORT(PickAdd);
HWY_EXPORT(PickStore);
HWY_EXPORT(PickJoin);
HWY_EXPORT(GroupUnits);

namespace {
constexpr std::int64_t kSumsBytes = 16 << 10, kFewRows = 8, kFewSumsBytes = 64 << 10;  // measured with a first cache of 32 KiB

/// Pieces that k is cut into where C is small and the matrix large: threads then read whole rows, one stretch of memory each, twice as fast. A
/// function of the sizes only.
std::int64_t pieces_of(std::int64_t rows, std::int64_t columns, std::int64_t k, std::size_t bytes) {
  const bool large = columns * k * static_cast<std::int64_t>(bytes) > 2 << 20;
  return large && rows * columns <= 1 << 16 ? std::clamp<std::int64_t>(k / 128, 1, 8) : 1;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t whole_lines(std::int64_t floats) { return ceil_div(floats, kAlign) * kAlign; }

/// How a streamed product is cut, and where a part's workspace lies: it has its own panels, zeros and sums, as what another core has in its cache is
/// slow to write.
struct Plan {
  std::int64_t rows, columns;
  std::int64_t panels, group, groups;  // of the few rows; units of k in a group, and groups
  std::int64_t block;                  // columns of a block
  std::int64_t pieces;                 // that k is cut into; 1: parts take columns
  int parts;
  std::int64_t ld_sums, at_left, at_zeros, floats;  // of a part's workspace

  Plan(const Gemm& g, const Tiles& tiles, Short side, std::int64_t units_of_group)
      : rows(side == Short::rows ? g.m : g.n), columns(side == Short::rows ? g.n : g.m), panels(ceil_div(rows, tiles.rows)), group(units_of_group) {
    groups = ceil_div(ceil_div(g.k, tiles.unit), group);
    // Whole cache lines of the matrix. Many sums are bound by arithmetic and stay in the first cache; few by reading the matrix, whose rows are then
    // left whole.
    const std::int64_t most = (rows <= kFewRows ? kFewSumsBytes : kSumsBytes) / 4 / rows;
    block = std::min(ceil_div(columns, kAlign), std::max<std::int64_t>(most / kAlign, 1)) * kAlign;
    pieces = pieces_of(rows, columns, g.k, size_of(g.a));
    parts = static_cast<int>(pieces > 1 ? pieces : std::clamp<std::int64_t>(columns / kAlign, 1, num_threads()));
    // Neighbouring rows of the sums are at an odd number of lines from each other: in other sets of the cache.
    const std::int64_t most_groups = pieces > 1 ? ceil_div(groups, pieces) : groups;
    ld_sums = (pieces > 1 ? whole_lines(columns) : block) + kAlign / 4;
    at_left = whole_lines((rows + kAlign) * ld_sums);
    at_zeros = at_left + whole_lines(panels * most_groups * group * tiles.rows);
    floats = at_zeros + whole_lines(block);
  }
  /// The groups of k that a part computes.
  Range groups_of(int part) const { return pieces > 1 ? part_range(groups, parts, part) : Range{0, groups}; }
};

}  // namespace

bool is_streamed(const Gemm& g, Short side) {
  const bool streams = side == Short::rows ? !g.trans_b && g.m <= kStreamRows : g.trans_a && g.n <= kStreamRows;
  return streams && g.k > 0 && g.batch == 1 && g.alpha == 1 && !g.bias && !g.residual && (g.a == f32 || is_16bit(g.a));
}

void stream_gemm(Queue& queue, const Tiles& tiles, const Gemm& g, Short side, const void* a, const void* b, void* c) {
  MEZZO_CHECK(is_streamed(g, side));
  const bool by_rows = side == Short::rows, pairs = tiles.unit == 2;
  const Plan plan(g, tiles, side, HWY_DYNAMIC_DISPATCH(GroupUnits)(pairs));
  const Block memory = queue.scratch(static_cast<std::size_t>(plan.floats * plan.parts) * sizeof(float));
  if (DryRun::active()) return;

  const Operand small = by_rows ? Operand{a, g.a, g.lda, !g.trans_a} : Operand{b, g.b, g.ldb, g.trans_b};
  const void* const matrix = by_rows ? b : a;
  const std::int64_t ld = by_rows ? g.ldb : g.lda, bytes = g.k * plan.columns * static_cast<std::int64_t>(size_of(g.a));
  const bool fetch = bytes > cpu_info().l2, resident = bytes / std::min(plan.parts, num_threads()) <= cpu_info().l2;
  const Target target{c, g.ldc, g.c, static_cast<float>(g.beta), !by_rows};
  const auto add = HWY_DYNAMIC_DISPATCH(PickAdd)(g.a, pairs, plan.rows, plan.panels == 1 && resident);
  const auto store = HWY_DYNAMIC_DISPATCH(PickStore)(g.c);
  const auto sums_of = [&](int part) { return memory.as<float>() + plan.floats * part; };
  parallel_parts(plan.parts, [&](int part) {
    float *const sums = sums_of(part), *const left = sums + plan.at_left, *const zeros = sums + plan.at_zeros;
    const Range mine_of_k = plan.groups_of(part);
    const std::int64_t first = mine_of_k.begin * plan.group * tiles.unit, k = std::min(g.k, mine_of_k.end * plan.group * tiles.unit) - first;
    const std::int64_t length = (mine_of_k.end - mine_of_k.begin) * plan.group, used = ceil_div(k, tiles.unit);
    Operand piece = small;
    piece.x = at(small.x, small.k_contiguous ? first : first * small.ld, size_of(small.dtype));
    tiles.pack_a(piece, plan.rows, k, 0, plan.panels, length, left);
    for (std::int64_t q = 0; q < plan.panels; ++q) {
      float* const panel = left + q * length * tiles.rows;
      std::fill(panel + used * tiles.rows, panel + length * tiles.rows, 0.0f);
    }
    std::fill_n(zeros, plan.block, 0.0f);
    const Stream stream{left, plan.rows, tiles.rows, length, at(matrix, first * ld, size_of(g.a)), g.a, ld, k, zeros, fetch};
    if (plan.pieces > 1) {
      std::fill_n(sums, plan.rows * plan.ld_sums, 0.0f);
      for (std::int64_t j = 0; j < plan.columns; j += plan.block) add(stream, j, std::min(j + plan.block, plan.columns), sums + j, plan.ld_sums);
      return;
    }
    const Range mine = part_range(plan.columns, plan.parts, part, kAlign);
    for (std::int64_t j = mine.begin; j < mine.end; j += plan.block) {
      const std::int64_t end = std::min(j + plan.block, mine.end);
      std::fill_n(sums, plan.rows * plan.ld_sums, 0.0f);
      add(stream, j, end, sums, plan.ld_sums);
      store(target, sums, plan.ld_sums, plan.rows, j, end - j);
    }
  });
  if (plan.pieces == 1) return;
  const auto join = HWY_DYNAMIC_DISPATCH(PickJoin)();
  parallel_for(
      plan.columns, std::max<std::int64_t>(kAlign, kGrain / plan.rows),
      [&](std::int64_t begin, std::int64_t end) {
        for (int part = 1; part < plan.parts; ++part) join(plan.rows, plan.ld_sums, begin, end - begin, sums_of(part), sums_of(0));
        store(target, sums_of(0) + begin, plan.ld_sums, plan.rows, begin, end - begin);
      },
      kAlign);
}

}  // namespace mezzo::kernels
#endif
