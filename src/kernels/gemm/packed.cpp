// packed.cpp - blocks, threads and workspace of the packed matrix product.
//
// For a block of columns, for a slice of k: the panels of B are packed once, by all threads together, into memory they share; then each
// thread takes its rectangle of C and packs the rows of A it needs, a block at a time, into its second cache. (The loops of Goto & van
// de Geijn, "Anatomy of high-performance matrix multiplication", ACM TOMS 34(3), 2008.)
#include "kernels/gemm/packed.h"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <mezzo/runtime.h>
#include "core/dry_run.h"
#include "core/parallel.h"

namespace mezzo::kernels {
namespace {

constexpr std::int64_t kSlice = 2048;           // of k: longer sums are cut, so that a block of A has rows enough
constexpr std::int64_t kShort = 16;             // units of k
constexpr std::int64_t kSharedBytes = 8 << 20;  // packed B: a part of the last cache

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class P> P* at(P* p, std::int64_t elements, Dtype t) {
  using Byte = std::conditional_t<std::is_const_v<P>, const std::byte, std::byte>;
  return static_cast<Byte*>(p) + elements * static_cast<std::int64_t>(size_of(t));
}

Operand advanced(Operand o, std::int64_t i, std::int64_t p) {
  o.x = at(o.x, o.k_contiguous ? i * o.ld + p : p * o.ld + i, o.dtype);
  return o;
}

/// Threads as a grid over panels of rows and of columns: the least work for the busiest, then the least packing of A.
struct Grid {
  int rows = 1, cols = 1;
};
Grid grid(int threads, std::int64_t row_panels, std::int64_t col_panels) {
  Grid best;
  std::int64_t least = row_panels * col_panels;
  for (int cols = 1; cols <= threads; ++cols) {
    const int rows = threads / cols;
    const std::int64_t work = ceil_div(row_panels, rows) * ceil_div(col_panels, cols);
    if (work < least) best = {rows, cols}, least = work;
  }
  return best;
}

void in_parts(int parts, FunctionRef<void(int)> body) {
  if (parts == 1) return body(0);
  parallel_parts(parts, body);
}

/// Fetches lines of the rows of C that come next into the second cache, in the order of memory: the hardware does not follow a dozen rows at a time.
class Ahead {
 public:
  Ahead(const void* rows, std::int64_t row_bytes, std::int64_t width) : row_(static_cast<const char*>(rows)), stride_(row_bytes), width_(width) {}
  void fetch(std::int64_t bytes) {
    for (; bytes > 0; bytes -= 64) {
      __builtin_prefetch(row_ + at_, 1, 2);
      at_ += 64;
      if (at_ >= width_) row_ += stride_, at_ = 0;
    }
  }

 private:
  const char* row_;
  std::int64_t stride_, width_, at_ = 0;
};

/// What is the same for all tiles of a slice: packed B stands ready, A is packed on the way.
struct Slice {
  const Tiles& tiles;
  Operand a;
  std::int64_t m, n, k, units;
  const std::byte* b_panels;
  std::int64_t block_panels;  // panels of A that are packed together
  Dtype c_dtype;
  Finish finish;
  bool along_rows = false;  // tiles in the order in which C lies in memory: for short sums, which are bound by reading and writing it

  std::int64_t c_bytes() const { return static_cast<std::int64_t>(size_of(c_dtype)); }
  std::int64_t a_panel_bytes() const { return units * tiles.rows * 4; }
  std::int64_t b_panel_bytes() const { return units * tiles.cols * 4; }

  /// The tiles of panels `rows` x `cols`, with workspace for block_panels panels of A.
  void compute(Range rows, Range cols, std::byte* a_panels) const {
    const std::int64_t row_panels = ceil_div(m, tiles.rows);
    for (std::int64_t first = rows.begin; first < rows.end; first += block_panels) {
      const std::int64_t last = std::min(first + block_panels, rows.end);
      tiles.pack_a(a, m, k, first, last, a_panels);
      if (along_rows) {
        for (std::int64_t r = first; r < last; ++r) {
          Ahead next(at(finish.c, (r + 1) * tiles.rows * finish.ldc + cols.begin * tiles.cols, c_dtype), finish.ldc * c_bytes(),
                     (cols.end - cols.begin) * tiles.cols * c_bytes());
          for (std::int64_t q = cols.begin; q < cols.end; ++q) {
            if (r + 2 < row_panels) next.fetch(tiles.rows * tiles.cols * c_bytes());
            tile(r * tiles.rows, q * tiles.cols, a_panels + (r - first) * a_panel_bytes(), b_panels + q * b_panel_bytes());
          }
        }
        continue;
      }
      for (std::int64_t q = cols.begin; q < cols.end; ++q) {
        for (std::int64_t r = first; r < last; ++r) {
          tile(r * tiles.rows, q * tiles.cols, a_panels + (r - first) * a_panel_bytes(), b_panels + q * b_panel_bytes());
        }
      }
    }
  }

 private:
  void tile(std::int64_t i, std::int64_t j, const std::byte* a_panel, const std::byte* b_panel) const {
    Finish f = finish;
    f.c = at(f.c, i * f.ldc + j, c_dtype);
    if (f.add) f.add += i * f.ld_add + j;
    if (f.bias) f.bias += j;
    if (f.residual) f.residual = at(f.residual, i * f.ldc + j, c_dtype);
    const auto rows = std::min<std::int64_t>(tiles.rows, m - i), cols = std::min<std::int64_t>(tiles.cols, n - j);
    tiles.tile(c_dtype, static_cast<int>(rows), static_cast<int>(cols), units, a_panel, b_panel, f);
  }
};

/// How one product is cut.
struct Plan {
  std::int64_t slice;                   // elements of k in a slice
  std::int64_t a_panel, b_panel;        // bytes of a panel of a slice
  std::int64_t row_panels, col_panels;  // of the product
  std::int64_t block, chunk;            // panels of A that a thread packs together; panels of B that stand ready together
  bool partial;                         // the sums of all slices but the last stay f32, apart from C

  Plan(const Tiles& tiles, const Gemm& g, int threads) {
    const std::int64_t slices = std::max<std::int64_t>(ceil_div(g.k, kSlice), 1), units = ceil_div(ceil_div(g.k, slices), tiles.unit);
    slice = std::max<std::int64_t>(units * tiles.unit, 1);
    a_panel = units * tiles.rows * 4;
    b_panel = units * tiles.cols * 4;
    row_panels = ceil_div(g.m, tiles.rows);
    col_panels = ceil_div(g.n, tiles.cols);
    block = std::min(row_panels, std::max<std::int64_t>(cpu_info().l2 * 3 / 8 / std::max<std::int64_t>(a_panel, 1), 1));
    chunk = std::min(col_panels, std::max<std::int64_t>(kSharedBytes / std::max<std::int64_t>(b_panel, 1), threads));
    partial = slices > 1 && g.c != f32;
  }
};

/// Several arrays in one piece of workspace; a small one lies on the stack.
class Workspace {
 public:
  std::size_t reserve(std::int64_t bytes) {
    const std::size_t offset = total_;
    total_ += (static_cast<std::size_t>(bytes) + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  }
  std::byte* allocate(Queue& queue) {
    if (total_ <= sizeof(near_)) return near_;
    far_ = queue.scratch(total_);
    return far_.as<std::byte>();
  }

 private:
  std::size_t total_ = 0;
  Block far_;
  alignas(kAlignment) std::byte near_[16 << 10];
};

}  // namespace

void packed_gemm(Queue& queue, const Tiles& tiles, int threads, const Gemm& g, const void* a, const void* b, void* c) {
  const Operand rows{a, g.a, g.lda, !g.trans_a}, cols{b, g.b, g.ldb, g.trans_b};
  const Plan plan(tiles, g, threads);
  const bool widen_bias = g.bias && g.bias_dtype != f32;

  Workspace workspace;
  const std::size_t at_b = workspace.reserve(plan.chunk * plan.b_panel), at_a = workspace.reserve(threads * plan.block * plan.a_panel);
  const std::size_t at_sums = workspace.reserve(plan.partial ? g.m * plan.chunk * tiles.cols * 4 : 0);
  const std::size_t at_bias = workspace.reserve(widen_bias ? plan.col_panels * tiles.cols * 4 + 256 : 0);
  std::byte* const memory = workspace.allocate(queue);
  if (DryRun::active()) return;
  std::byte *const b_panels = memory + at_b, *const a_panels = memory + at_a;
  float* const sums = reinterpret_cast<float*>(memory + at_sums);
  const float* bias = static_cast<const float*>(g.bias);
  if (widen_bias) {  // a panel one step long is a row
    const Tiles& f32 = f32_tiles();
    f32.pack_b({g.bias, g.bias_dtype, g.n, false}, g.n, 1, 0, ceil_div(g.n, f32.cols), memory + at_bias);
    bias = reinterpret_cast<const float*>(memory + at_bias);
  }

  for (std::int64_t first_panel = 0; first_panel < plan.col_panels; first_panel += plan.chunk) {
    const std::int64_t j = first_panel * tiles.cols, n = std::min(g.n - j, plan.chunk * tiles.cols), col_panels = ceil_div(n, tiles.cols);
    for (std::int64_t p = 0; p == 0 || p < g.k; p += plan.slice) {
      const std::int64_t k = std::min(plan.slice, g.k - p);
      const bool first = p == 0, last = p + k == g.k;
      Slice s{tiles, advanced(rows, 0, p), g.m, n, k, ceil_div(k, tiles.unit), b_panels, plan.block, g.c, {}};
      s.along_rows = s.units <= kShort && n * s.units * 4 <= cpu_info().l2 / 2;
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
      in_parts(threads, [&](int part) {
        const Range panels = part_range(col_panels, threads, part);
        tiles.pack_b(advanced(cols, j, p), n, k, panels.begin, panels.end, b_panels + panels.begin * s.b_panel_bytes());
      });
      const Grid parts = grid(threads, plan.row_panels, col_panels);
      in_parts(parts.rows * parts.cols, [&](int part) {
        s.compute(part_range(plan.row_panels, parts.rows, part / parts.cols), part_range(col_panels, parts.cols, part % parts.cols),
                  a_panels + part * plan.block * plan.a_panel);
      });
    }
  }
}

}  // namespace mezzo::kernels
