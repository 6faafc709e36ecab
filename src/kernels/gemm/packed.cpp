// packed.cpp - blocks, threads and workspace of the packed matrix product.
//
// Each thread takes a rectangle of C and computes it by itself: for a block of columns, for a slice of k it packs the panels of B, then the rows of A
// a block at a time into its second cache. (The loops of Goto & van de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3),
// 2008.) Threads share no packed panel: lines that one core has written and another reads, and which it then writes again, cost more than packing
// twice, and there is no barrier (bench/RESULTS.md, "No cliffs").
#include "kernels/gemm/packed.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "core/parallel.h"

namespace mezzo::kernels {
namespace {

constexpr std::int64_t kSlice = 2048;  // of k: longer sums are cut, so that a block of A has rows enough
// Units of k up to which threads share rows only, and up to which each goes through C in the order of memory.
constexpr std::int64_t kShort = 16, kMedium = 64;
constexpr std::int64_t kPanelBytes = 4 << 20;  // of packed B, each thread's: a part of the last cache
// Products and sums in the time of packing an element, roughly: what a thread would pack alone is weighed against what it multiplies.
constexpr std::int64_t kPackingWork = 16;
// A long sum into a small C, which gives threads nothing to share but k: elements of C at most, of k at least, and in a piece of it.
constexpr std::int64_t kSmallC = 8 << 10, kLongSum = 1024, kPiece = 256;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class P> P* at(P* p, std::int64_t elements, Dtype t) {
  using Byte = std::conditional_t<std::is_const_v<P>, const std::byte, std::byte>;
  return static_cast<Byte*>(p) + elements * static_cast<std::int64_t>(size_of(t));
}

Operand advanced(Operand o, std::int64_t i, std::int64_t p) {
  if (o.x) o.x = at(o.x, o.k_contiguous ? i * o.ld + p : p * o.ld + i, o.dtype);
  return o;
}

/// An operand, and the one in which its sums go on (Gemm::Tail).
struct Operands {
  Operand main, tail;
  Operands from(std::int64_t i) const { return {advanced(main, i, 0), advanced(tail, i, 0)}; }
};

/// Threads as a grid over panels of rows and of columns: the least work for the busiest, each of which packs its own panels. Short sums are bound by
/// going through C: whole rows of it, if there are enough.
struct Grid {
  int rows = 1, cols = 1;
  Range row_panels(int part, std::int64_t of) const { return part_range(of, rows, part / cols); }
  Range col_panels(int part, std::int64_t of) const { return part_range(of, cols, part % cols); }
};
Grid grid(int threads, const Tiles& tiles, std::int64_t units, std::int64_t row_panels, std::int64_t col_panels) {
  if (units <= kShort && row_panels >= threads) return {threads, 1};
  Grid best;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (int cols = 1; cols <= threads; ++cols) {
    const int rows = threads / cols;
    const std::int64_t m = ceil_div(row_panels, rows) * tiles.rows, n = ceil_div(col_panels, cols) * tiles.cols;
    if (const std::int64_t work = m * n + kPackingWork * (m + n); work < least) best = {rows, cols}, least = work;
  }
  return {static_cast<int>(std::min<std::int64_t>(best.rows, row_panels)), static_cast<int>(std::min<std::int64_t>(best.cols, col_panels))};
}

void in_parts(int parts, FunctionRef<void(int)> body) {
  if (parts == 1) return body(0);
  parallel_parts(parts, body);
}

/// What is the same for all tiles of a slice: packed B stands ready, A is packed on the way.
struct Slice {
  const Tiles& tiles;
  Operands a;
  std::int64_t m, n, k, tail, units;
  const std::byte* b_panels;
  std::int64_t block_panels;  // panels of A that are packed together
  std::byte* a_panels;        // workspace for them
  Dtype c_dtype;
  Finish finish;
  bool along_rows = false;  // tiles in the order in which C lies in memory: for short sums, which are bound by reading and writing it

  void compute() const {
    const std::int64_t row_panels = ceil_div(m, tiles.rows), col_panels = ceil_div(n, tiles.cols);
    for (std::int64_t first = 0; first < row_panels; first += block_panels) {
      const std::int64_t last = std::min(first + block_panels, row_panels);
      pack(tiles.pack_a, tiles.rows, a, m, first, last, a_panels);
      const std::int64_t end = last * tiles.rows;
      if (along_rows) {
        for (std::int64_t i = first * tiles.rows; i < end; i += tiles.rows)
          line(i, 0, a_panel(i, first), b_panels, col_panels, 0, tiles.cols, place(i + tiles.rows, 0));
      } else {
        for (std::int64_t j = 0; j < n; j += tiles.cols)
          line(first * tiles.rows, j, a_panels, b_panel(j), last - first, tiles.rows, 0, place(first * tiles.rows, j + tiles.cols));
      }
    }
  }

  /// Panels of an operand, those of its tail behind each.
  void pack(decltype(Tiles::pack_a) panels, int width, const Operands& o, std::int64_t count, std::int64_t first, std::int64_t last,
            std::byte* to) const {
    panels(o.main, count, k, first, last, units, to);
    if (tail) panels(o.tail, count, tail, first, last, units, to + ceil_div(k, tiles.unit) * width * 4);
  }

 private:
  const std::byte* a_panel(std::int64_t i, std::int64_t first) const { return a_panels + (i / tiles.rows - first) * tiles.rows * units * 4; }
  const std::byte* b_panel(std::int64_t j) const { return b_panels + j * units * 4; }
  /// Element (i, j) of C, which may be past its end.
  void* place(std::int64_t i, std::int64_t j) const { return at(finish.c, i * finish.ldc + j, c_dtype); }

  /// `count` tiles, the first at (i, j), each `down` rows and `across` columns from the one before it; after them comes the one at `next`.
  void line(std::int64_t i, std::int64_t j, const std::byte* a, const std::byte* b, std::int64_t count, std::int64_t down, std::int64_t across,
            const void* next) const {
    const std::int64_t step = down * finish.ldc + across, add_step = down * finish.ld_add + across;
    Finish f = finish;
    f.c = place(i, j);
    if (f.add) f.add += i * f.ld_add + j;
    if (f.bias) f.bias += j;
    if (f.residual) f.residual = at(f.residual, i * f.ldc + j, c_dtype);
    for (; count > 0; --count, i += down, j += across) {
      void* const following = at(f.c, step, c_dtype);
      f.next = count > 1 ? following : next;
      const auto rows = std::min<std::int64_t>(tiles.rows, m - i), cols = std::min<std::int64_t>(tiles.cols, n - j);
      tiles.tile(c_dtype, static_cast<int>(rows), static_cast<int>(cols), units, a, b, f);
      a += down * units * 4;
      b += across * units * 4;
      f.c = following;
      if (f.add) f.add += add_step;
      if (f.bias) f.bias += across;
      if (f.residual) f.residual = at(f.residual, step, c_dtype);
    }
  }
};

std::int64_t aligned(std::int64_t bytes) { return ceil_div(bytes, kAlignment) * kAlignment; }

/// How the product of some rows and columns is cut, and where its workspace lies in one piece of memory.
struct Plan {
  std::int64_t slice;         // elements of k in a slice
  std::int64_t block, chunk;  // panels of A that are packed together; panels of B that stand ready together
  bool partial;               // the sums of all slices but the last stay f32, apart from C
  std::int64_t at_a, at_sums, at_bias, bytes;

  Plan(const Tiles& tiles, const Gemm& g, std::int64_t row_panels, std::int64_t col_panels) {
    const std::int64_t slices = std::max<std::int64_t>(ceil_div(g.k, kSlice), 1), main = ceil_div(ceil_div(g.k, slices), tiles.unit);
    slice = std::max<std::int64_t>(main * tiles.unit, 1);
    const std::int64_t units = main + ceil_div(g.tail.k, tiles.unit);
    const std::int64_t a_panel = units * tiles.rows * 4, b_panel = units * tiles.cols * 4;
    block = std::min(row_panels, std::max<std::int64_t>(cpu_info().l2 * 3 / 8 / std::max<std::int64_t>(a_panel, 1), 1));
    chunk = std::min(col_panels, std::max<std::int64_t>(kPanelBytes / std::max<std::int64_t>(b_panel, 1), 1));
    partial = slices > 1 && g.c != f32;
    at_a = aligned(chunk * b_panel);
    at_sums = at_a + aligned(block * a_panel);
    at_bias = at_sums + aligned(partial ? row_panels * tiles.rows * chunk * tiles.cols * 4 : 0);
    bytes = at_bias + aligned(widens_bias(g) ? col_panels * tiles.cols * 4 + 256 : 0);
  }
  static bool widens_bias(const Gemm& g) { return g.bias && g.bias_dtype != f32; }
};

/// The product g of one thread, which may be a rectangle of a larger one.
void serial(const Tiles& tiles, const Plan& plan, const Gemm& g, const Operands& rows, const Operands& cols, void* c, std::byte* memory) {
  float* const sums = reinterpret_cast<float*>(memory + plan.at_sums);
  const float* bias = static_cast<const float*>(g.bias);
  if (Plan::widens_bias(g)) {  // a panel one step long is a row
    const Tiles& f32 = f32_tiles();
    f32.pack_b({g.bias, g.bias_dtype, g.n, false}, g.n, 1, 0, ceil_div(g.n, f32.cols), 1, memory + plan.at_bias);
    bias = reinterpret_cast<const float*>(memory + plan.at_bias);
  }
  const std::int64_t chunk = plan.chunk * tiles.cols;
  for (std::int64_t j = 0; j < g.n; j += chunk) {
    const std::int64_t n = std::min(g.n - j, chunk);
    for (std::int64_t p = 0; p == 0 || p < g.k; p += plan.slice) {
      const std::int64_t k = std::min(plan.slice, g.k - p);
      const bool first = p == 0, last = p + k == g.k;
      const std::int64_t tail = last ? g.tail.k : 0, units = ceil_div(k, tiles.unit) + ceil_div(tail, tiles.unit);
      const auto slice_of = [p](const Operands& o, std::int64_t i) { return Operands{advanced(o.main, i, p), advanced(o.tail, i, 0)}; };
      Slice s{tiles, slice_of(rows, 0), g.m, n, k, tail, units, memory, plan.block, memory + plan.at_a, g.c, {}};
      s.along_rows = s.units <= kMedium && n * s.units * 4 <= cpu_info().l2 / 2;
      s.finish.alpha = static_cast<float>(g.alpha);
      if (plan.partial && !last) {
        s.c_dtype = f32;
        s.finish.c = sums;
        s.finish.ldc = n;
        s.finish.beta = first ? 0.0f : 1.0f;
      } else {
        s.finish.c = at(c, j, g.c);
        s.finish.ldc = g.ldc;
        s.finish.beta = first || plan.partial ? static_cast<float>(g.beta) : 1.0f;
      }
      if (last) {
        if (plan.partial) s.finish.add = sums, s.finish.ld_add = n;
        if (bias) s.finish.bias = bias + j;
        if (g.residual) s.finish.residual = at(g.residual, j, g.c);
      }
      s.pack(tiles.pack_b, tiles.cols, slice_of(cols, j), n, 0, ceil_div(n, tiles.cols), memory);
      s.compute();
    }
  }
}

/// Pieces that k is cut into, each summed by itself, so that threads share the packing of a long sum into a small C; 1: one sum. A function of the
/// sizes only: the bits do not hang on the number of threads.
std::int64_t pieces_of(const Gemm& g) {
  if (g.c != f32 || g.tail.k != 0 || g.bias || g.residual || g.m * g.n > kSmallC || g.k < kLongSum) return 1;
  return std::min<std::int64_t>(g.k / kPiece, 8);
}

/// C = alpha A B + beta C as a sum over pieces of k.
void in_pieces(Queue& queue, const Tiles& tiles, int threads, std::int64_t pieces, const Gemm& g, const Operands& rows, const Operands& cols,
               float* c) {
  Gemm piece = g;
  piece.k = ceil_div(ceil_div(g.k, pieces), tiles.unit) * tiles.unit;
  piece.beta = 0;
  piece.ldc = g.n;
  const int count = static_cast<int>(ceil_div(g.k, piece.k));
  const Plan plan(tiles, piece, ceil_div(g.m, tiles.rows), ceil_div(g.n, tiles.cols));
  const std::int64_t at_work = aligned(count * g.m * g.n * 4);
  const Block memory = queue.scratch(static_cast<std::size_t>(at_work + plan.bytes * count));
  if (DryRun::active()) return;
  float* const sums = memory.as<float>();
  const auto compute = [&](int part) {
    Gemm mine = piece;
    const std::int64_t first = part * piece.k;
    mine.k = std::min(piece.k, g.k - first);
    serial(tiles, plan, mine, {advanced(rows.main, 0, first), {}}, {advanced(cols.main, 0, first), {}}, sums + part * g.m * g.n,
           memory.as<std::byte>() + at_work + plan.bytes * part);
  };
  if (threads > 1) parallel_parts(count, compute);
  else
    for (int part = 0; part < count; ++part) compute(part);
  tiles.join(g.m, g.n, sums, count, static_cast<float>(g.beta), c, g.ldc);
}

}  // namespace

void packed_gemm(Queue& queue, const Tiles& tiles, int threads, const Gemm& g, const void* a, const void* b, void* c) {
  const Operands rows{{a, g.a, g.lda, !g.trans_a}, {g.tail.a, g.a, g.tail.lda, !g.trans_a}};
  const Operands cols{{b, g.b, g.ldb, g.trans_b}, {g.tail.b, g.b, g.tail.ldb, g.trans_b}};
  if (const std::int64_t pieces = pieces_of(g); pieces > 1) return in_pieces(queue, tiles, threads, pieces, g, rows, cols, static_cast<float*>(c));
  const std::int64_t row_panels = ceil_div(g.m, tiles.rows), col_panels = ceil_div(g.n, tiles.cols);
  const Grid parts = grid(threads, tiles, ceil_div(g.k + g.tail.k, tiles.unit), row_panels, col_panels);
  const int count = parts.rows * parts.cols;
  const Plan plan(tiles, g, ceil_div(row_panels, parts.rows), ceil_div(col_panels, parts.cols));
  alignas(kAlignment) std::byte near[16 << 10];  // a small workspace lies on the stack
  Block far;
  std::byte* memory = near;
  if (plan.bytes * count > static_cast<std::int64_t>(sizeof(near))) {
    far = queue.scratch(static_cast<std::size_t>(plan.bytes * count));
    memory = far.as<std::byte>();
  }
  if (DryRun::active()) return;
  in_parts(count, [&](int part) {
    const Range r = parts.row_panels(part, row_panels), q = parts.col_panels(part, col_panels);
    const std::int64_t i = r.begin * tiles.rows, j = q.begin * tiles.cols;
    Gemm mine = g;
    mine.m = std::min(g.m, r.end * tiles.rows) - i;
    mine.n = std::min(g.n, q.end * tiles.cols) - j;
    if (g.bias) mine.bias = at(g.bias, j, g.bias_dtype);
    if (g.residual) mine.residual = at(g.residual, i * g.ldc + j, g.c);
    serial(tiles, plan, mine, rows.from(i), cols.from(j), at(c, i * g.ldc + j, g.c), memory + part * plan.bytes);
  });
}

}  // namespace mezzo::kernels
