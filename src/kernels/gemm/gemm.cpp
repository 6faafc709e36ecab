// gemm.cpp - matrix products: checks, the choice of who computes them, and batches.
//
// Few rows: the thin product, or the streamed one, which also takes weight gradients with a narrow side. f32 and native bf16, where it is the faster
// one: oneDNN. Else the packed product, which widens 16-bit operands where the processor has no instructions for them. f64: f64.cpp.
#include <algorithm>
#include <cstddef>

#include <mezzo/runtime.h>
#include "core/fail.h"
#include "core/parallel.h"
#include "kernels/gemm/f64.h"
#include "kernels/gemm/onednn.h"
#include "kernels/gemm/packed.h"
#include "kernels/gemm/stream.h"
#include "kernels/gemm/thin.h"
#include "kernels/kernels.h"
#include "kernels/work_log.h"

namespace mezzo::kernels {
namespace {

// Measured on two cores of a Zen 4 (bench/gemm_bench.cpp): below the first, oneDNN's overhead and a second thread cost more than they
// bring; in a batch of products below the second, each thread takes whole products.
constexpr double kSmallFlops = 2e5, kWholeFlops = 6e7;

double flops(const Gemm& g) { return 2.0 * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k + g.tail.k); }

/// The leading dimension of a single row says nothing.
void settle(std::int64_t rows, std::int64_t cols, std::int64_t& ld) {
  if (rows <= 1) ld = std::max<std::int64_t>({ld, cols, 1});
}

void check(const Gemm& g) {
  MEZZO_CHECK(is_floating(g.a) && g.a == g.b && (g.c == g.a || (g.c == f32 && is_16bit(g.a))));
  MEZZO_CHECK(!g.bias || g.bias_dtype == f32 || g.bias_dtype == g.c);
  MEZZO_CHECK(g.m >= 0 && g.n >= 0 && g.k >= 0 && g.batch >= 0);
  MEZZO_CHECK(g.batch <= 1 || g.stride_c != 0);
  MEZZO_CHECK(g.lda >= (g.trans_a ? g.m : g.k) && g.ldb >= (g.trans_b ? g.k : g.n) && g.ldc >= g.n);
  MEZZO_CHECK(g.tail.k >= 0 && (g.tail.k == 0 || g.batch == 1));
}

const Tiles& tiles_for(Dtype t) {
  const Tiles* native = t == bf16 ? bf16_tiles() : nullptr;
  return native ? *native : f32_tiles();
}

/// Where oneDNN's f32 product loses to the packed one, or gains nothing: long sums of many rows, weight gradients (which it begins by transposing A)
/// unless of thousands of tokens, a transposed B with many rows if C is wide, or with few if it is narrow. Elsewhere it wins by a tenth to a half.
bool loses_in_f32(const Gemm& g) {
  constexpr std::int64_t kManyTokens = 2048, kLong = 8192, kManyRows = 256, kNarrow = 192;
  if (g.trans_a) return g.k < kManyTokens || g.n <= 64;
  if (g.trans_b) return g.m > kManyRows ? g.n >= kNarrow : g.n < kNarrow || g.k < 128;
  return (g.n <= 64 && g.m < 24) || (g.k >= kLong && g.m >= 128);
}

/// Where reading B's rows as they are beats packing them. Each sum ends in adding up lanes, so short ones are worth it on few rows only.
bool thin(const Gemm& g) {
  if (!is_thin(g, kDirectRows)) return false;
  if (!native_gemm(g.a)) return g.m <= kThinRows;
  if (g.m <= 4) return true;
  return g.k >= (g.a == f32 ? 192 : g.m <= kThinRows ? 64 : 256);
}

/// Where streaming one operand as it lies beats packing it, on two threads: input gradients of a few rows, weight gradients with a narrow side. (On
/// 12 rows of an input gradient by half in bf16, on 32 by a tenth; on 20 columns of a weight gradient it is up to three times as fast.) In f32
/// oneDNN's wins where the matrix stays in cache, and soonest where the narrow side grows.
bool streams(const Gemm& g, Short side) {
  constexpr std::int64_t kRows = 16, kRowsF32 = 12, kRowsOfWide = 32, kWideEnough = 384, kDepth = 32, kLong = 4096, kCached = 1 << 20,
                         kSums = 24 << 10;
  const std::int64_t few = side == Short::rows ? g.m : g.n, many = side == Short::rows ? g.n : g.m;
  const bool half = is_16bit(g.a);
  if (!is_streamed(g, side) || g.k < kDepth) return false;
  if (!g.trans_a) {
    if (many < 128) return half && few <= 24 && g.k >= kLong;
    if (!half) return few <= kRowsF32 && many * g.k >= kCached;
    return few <= kRows || (few <= kRowsOfWide && many >= kWideEnough && g.a == bf16 && native_gemm(bf16));
  }
  if (many < 192) return false;
  if (side == Short::rows) return half ? few * many <= kSums : few <= kRows;
  return few <= 24 ? g.k >= 64 : half ? few % 16 != 0 && g.k >= 128 : few <= 28;
}

/// Where A read as it is, with its few partners beside it, beats tiles that are mostly empty: narrow C, long sums (each ends in adding up lanes), and
/// in f32 partners that need no transposing.
bool thin_in_columns(const Gemm& g) {
  if (!is_thin_in_columns(g) || g.m < (g.k >= 1024 ? 32 : 256) || (g.a == f32 && !g.trans_b)) return false;
  return g.a == bf16 && native_gemm(bf16) ? g.k >= 512 && g.n <= 24 && g.n % 16 != 0 : g.k >= 192 && g.n % 16 != 0;
}

/// Where oneDNN's bf16 product loses to the packed one, each repeated with its operands where the last run left them in the caches. (A transposed A
/// it first copies.)
bool loses_in_bf16(const Gemm& g) {
  if (g.trans_a) return true;
  if (g.c == f32) return g.n < 128 ? g.m > 32 && g.m < 384 : g.m >= 512 && g.n >= 1024;  // logits: by a fifth, by a twentieth
  if (g.k <= 40 && g.m >= 48 && g.n >= 2048) return true;                                // C is most of the work, and leaves the cache
  if (!g.trans_b && g.k >= 16384) return true;                                           // a head's input gradient, by a tenth to a half
  if (g.n < 128 || g.m > 64) return false;
  return g.trans_b ? g.m >= 26 && g.k <= 640 : g.m > 16 && g.n <= 512;  // by a fifth
}

bool by_onednn(Queue& queue, const Gemm& g, const void* a, const void* b, void* c) {
  if (g.k == 0 || flops(g) < kSmallFlops) return false;
  if (g.a == f32 ? loses_in_f32(g) : g.a != bf16 || loses_in_bf16(g)) return false;
  return onednn_matmul(queue, g, a, b, c);
}

/// The product that is added to what g without its tail gives.
Gemm tail_of(const Gemm& g) {
  Gemm t = g;
  t.tail = {};
  t.k = g.tail.k, t.lda = g.tail.lda, t.ldb = g.tail.ldb;
  t.beta = 1;
  t.bias = t.residual = nullptr;
  return t;
}

/// Whether the packed product takes a tail along at less cost than a product of its own for it.
bool extends(const Gemm& g) { return !g.trans_a && (is_16bit(g.a) ? g.m > 24 : g.a == f32 && g.m > 256); }

void one(Queue& queue, int threads, const Gemm& g, const void* a, const void* b, void* c) {
  if (g.a == f64) return f64_gemm(queue, threads, g, static_cast<const double*>(a), static_cast<const double*>(b), static_cast<double*>(c));
  packed_gemm(queue, tiles_for(g.a), threads, g, a, b, c);
}

/// A product, and what its tail adds, one after the other.
void in_turn(Queue& queue, const Gemm& g, const void* a, const void* b, void* c) {
  MEZZO_CHECK(g.tail.k > 0 && g.batch == 1);
  Gemm main = g, tail = tail_of(g);
  main.tail = {};
  if (!is_16bit(g.c) || g.beta != 0) {
    gemm(queue, main, a, b, c);
    return gemm(queue, tail, g.tail.a, g.tail.b, c);
  }
  // The tail first, as the residual of the rest: small beside it, it would be lost in a sum that is rounded already.
  const Block sums = queue.scratch(static_cast<std::size_t>(g.m * g.ldc) * size_of(g.c));
  tail.beta = 0;
  tail.residual = g.residual;
  main.residual = sums.as<void>();
  gemm(queue, tail, g.tail.a, g.tail.b, sums.as<void>());
  gemm(queue, main, a, b, c);
}

/// The products of a batch: many small ones a thread each, else one after the other by all threads.
void each_of_batch(Queue& queue, const Gemm& g, const void* a, const void* b, void* c) {
  const auto product = [&](std::int64_t i, auto&& compute) {
    const auto at = [i](const void* p, std::int64_t stride, Dtype t) {
      return static_cast<const std::byte*>(p) + i * stride * static_cast<std::int64_t>(size_of(t));
    };
    Gemm p = g;
    if (p.residual) p.residual = at(p.residual, g.stride_c, g.c);
    compute(p, at(a, g.stride_a, g.a), at(b, g.stride_b, g.b), const_cast<std::byte*>(at(c, g.stride_c, g.c)));
  };
  const int threads = flops(g) < kSmallFlops ? 1 : num_threads();
  if (g.batch > 1 && threads * 2 <= g.batch && flops(g) < kWholeFlops) {
    const auto grain = static_cast<std::int64_t>(kSmallFlops / std::max(flops(g), 1.0)) + 1;
    return parallel_for(g.batch, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        product(i, [&](const Gemm& p, const void* pa, const void* pb, void* pc) { one(queue, 1, p, pa, pb, pc); });
    });
  }
  for (std::int64_t i = 0; i < g.batch; ++i) {
    product(i, [&](const Gemm& p, const void* pa, const void* pb, void* pc) {
      if (!by_onednn(queue, p, pa, pb, pc)) one(queue, threads, p, pa, pb, pc);
    });
  }
}

}  // namespace

bool native_gemm(Dtype t) { return !is_16bit(t) || (t == bf16 && bf16_tiles()); }

void gemm(Queue& queue, const Gemm& given, const void* a, const void* b, void* c) {
  if (given.tail.k != 0 && !extends(given)) return in_turn(queue, given, a, b, c);
  Gemm g = given;
  settle(g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, g.lda);
  settle(g.trans_b ? g.n : g.k, g.trans_b ? g.k : g.n, g.ldb);
  settle(g.m, g.n, g.ldc);
  check(g);
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  if (auto* log = WorkLog::current()) log->add(g);
  if (g.alpha == 0) g.k = g.tail.k = 0;  // as in BLAS, A and B are not looked at
  const bool small = flops(g) < kSmallFlops;
  if (g.tail.k != 0) return packed_gemm(queue, tiles_for(g.a), small ? 1 : num_threads(), g, a, b, c);
  if (!small) {
    if (thin(g)) {
      const auto bytes = static_cast<std::int64_t>(size_of(g.b));
      return thin_gemm(queue, g, a, {b, g.ldb * bytes, 1, bytes, nullptr, g.b}, c);
    }
    for (const Short side : {Short::rows, Short::cols})
      if (streams(g, side)) return stream_gemm(queue, tiles_for(g.a), g, side, a, b, c);
    if (thin_in_columns(g)) return thin_columns_gemm(queue, g, a, b, c);
  }
  each_of_batch(queue, g, a, b, c);
}

}  // namespace mezzo::kernels
