// attention.cpp - attention: blocks of queries and keys, cut among threads, handed to an engine.
//
// Dao et al., "FlashAttention" (arXiv 2205.14135) and "FlashAttention-2" (arXiv 2307.08691), for caches instead of a GPU's memory.
// Storage T; scores, softmax and accumulators in f32, one rounding on store. With native bf16, P is rounded to bf16 for its product with v.
// A thread packs the keys and values of a unit once for all its blocks of that unit. The bits do not depend on the cut among threads.
#include <limits>

#include "core/parallel.h"
#include "kernels/work_log.h"
#include "kernels/cpu/attention_job.h"
#include "kernels/ref/attention.h"

namespace mezzo::kernels {
namespace flash {
namespace {

/// Queries [begin, end) of one head.
struct Queries {
  std::int64_t b, h, begin, end;
};

struct ForwardJob : Job {
  const void *q, *k, *v;
  void* out;
  float* lse;
  std::int64_t query_blocks;  // of one head
  std::int64_t blocks;        // of a unit; those of its first head come first

  ForwardJob(const Attention& a_, const void* q_, const void* k_, const void* v_, void* out_, float* lse_)
      : Job(a_), q(q_), k(k_), v(v_), out(out_), lse(lse_), query_blocks(blocks_of(a.tq, kQueries)), blocks(group * query_blocks) {}
  Queries queries(const Place& at) const {
    const std::int64_t begin = at.block % query_blocks * kQueries;
    return {batch(at.unit), head(at.unit, at.block / query_blocks), begin, std::min(a.tq, begin + kQueries)};
  }
  Rows rows_of_q(const Queries& at) const { return head_rows(q, a.q, at.b, at.h, at.begin, at.end); }
  MutableRows rows_of_out(const Queries& at) const { return head_rows(out, a.out, at.b, at.h, at.begin, at.end); }
  /// Packing the keys costs about as much as eight queries.
  std::int64_t cost(std::int64_t block) const {
    const Queries at = queries({0, block});
    return 1 + (at.end - at.begin + 8) * keys_seen(at.end);
  }
};

struct ForwardWork {
  Unit *keys_t, *values;  // packed, of the unit
  Unit* q;                // of the block, as all below
  float *scores, *out, *top, *sum, *fresh, *lse;
  Unit* p;
  Masks masks;

  ForwardWork(const Job& job, Carver& c)
      : keys_t(c.take(job.columns_size(job.a.tk))),
        values(c.take(job.panels_size(job.a.tk))),
        q(c.take(kQueries * job.d_units)),
        scores(c.take(kPatch)),
        out(c.take(kQueries * job.d_lanes)),
        top(c.take(kQueries)),
        sum(c.take(kQueries)),
        fresh(c.take(2 * kQueries)),
        lse(c.take(kQueries)),
        p(c.take(kPatch)),
        masks(job, c) {}
};

/// Running sums to out and lse.
void finish_block(const ForwardJob& job, const ForwardWork& work, const Queries& at) {
  float* const factors = work.fresh;
  finish_rows(work.top, work.sum, factors, work.lse);
  const std::int64_t rows = at.end - at.begin;
  for (std::int64_t r = 0; r < rows; ++r) {
    if (work.sum[r] != 0) continue;
    if (sees_nothing(job, at.b, at.h, at.begin + r)) factors[r] = 0;
    else work.lse[r] = factors[r];  // all its scores are -inf: NaN, for the backward too
  }
  std::copy_n(work.lse, rows, job.lse + (at.b * job.a.h + at.h) * job.a.tq + at.begin);
  store_rows(work.out, job.d_lanes, factors, 1, job.rows_of_out(at));
}

/// One block of queries against the `packed` first keys of its unit.
void forward_block(const ForwardJob& job, const ForwardWork& work, const Queries& at, std::int64_t packed, Ahead& ahead) {
  job.engine.pack_rows(job.rows_of_q(at), work.q);
  std::fill_n(work.top, kQueries, -std::numeric_limits<float>::infinity());
  std::fill_n(work.sum, kQueries, 0.0f);
  std::fill_n(work.out, (at.end - at.begin) * job.d_lanes, 0.0f);

  Forward f;
  f.rows = static_cast<int>(at.end - at.begin);
  f.d_units = static_cast<int>(job.d_units);
  f.d_lanes = static_cast<int>(job.d_lanes);
  f.scale = static_cast<float>(job.a.scale) * kLog2E;
  f.q = work.q;
  f.scores = work.scores;
  f.p = work.p;
  f.ahead = &ahead;
  f.top = work.top;
  f.sum = work.sum;
  f.fresh = work.fresh;
  f.out = work.out;
  const std::int64_t seen = job.keys_seen(at.end);
  for (std::int64_t key = 0; key < seen; key += kKeys) {
    f.keys = static_cast<int>(std::min<std::int64_t>(kKeys, seen - key));
    f.sight = job.sight(at.begin, key, f.keys);
    f.keys_t = job.columns(work.keys_t, packed, key);
    f.values = job.panels(work.values, packed, key);
    if (work.masks.fill(job, at.b, at.h, at.begin, key, f)) job.engine.forward(f);
  }
  finish_block(job, work, at);
}

/// What to prefetch while a block of a span is computed: its output, the next block's queries, a share of the next unit's keys and values.
Ahead ahead_of(const ForwardJob& job, const Span& span, const Span& after, std::int64_t block) {
  Ahead ahead = nothing_ahead(job);
  if (after.any()) {
    const std::int64_t i = block - span.begin, n = span.end - span.begin, from = i * job.a.tk / n, to = (i + 1) * job.a.tk / n;
    look_ahead(ahead, job.unit_rows(job.k, job.a.k, after.unit, from, to));
    look_ahead(ahead, job.unit_rows(job.v, job.a.v, after.unit, from, to));
  }
  if (block + 1 < span.end) look_ahead(ahead, job.rows_of_q(job.queries({span.unit, block + 1})));
  else if (after.any()) look_ahead(ahead, job.rows_of_q(job.queries({after.unit, after.begin})));
  look_ahead(ahead, job.rows_of_out(job.queries({span.unit, block})));
  return ahead;
}

void forward_range(const ForwardJob& job, const ForwardWork& work, const Range& range) {
  for (Span span = range.first(); span.any(); span = range.next(span)) {
    std::int64_t packed = 0;
    for (std::int64_t block = span.begin; block < span.end; ++block) packed = std::max(packed, job.keys_seen(job.queries({span.unit, block}).end));
    job.engine.pack_columns(job.unit_rows(job.k, job.a.k, span.unit, 0, packed), work.keys_t);
    job.engine.pack_panels(job.unit_rows(job.v, job.a.v, span.unit, 0, packed), work.values);
    for (std::int64_t block = span.begin; block < span.end; ++block) {
      Ahead ahead = ahead_of(job, span, range.next(span), block);
      forward_block(job, work, job.queries({span.unit, block}), packed, ahead);
    }
  }
}

}  // namespace
}  // namespace flash

void attention(Queue& queue, const Attention& given, const void* q, const void* k, const void* v, void* out, float* lse) {
  const Attention a = flash::normalized(given);
  if (a.b * a.h * a.tq * a.d == 0) return;
  if (auto* log = WorkLog::current()) log->add(a, 4);  // q k^T, p v
  if (a.dtype == f64) {
    return ref::attention(a, static_cast<const double*>(q), static_cast<const double*>(k), static_cast<const double*>(v), static_cast<double*>(out),
                          lse);
  }
  const flash::ForwardJob job(a, q, k, v, out, lse);
  const flash::Schedule schedule(queue, job, job.blocks, [&](std::int64_t block) { return job.cost(block); });
  const flash::Workspace<flash::ForwardWork> workspace(queue, job, schedule.parts());
  parallel_parts(schedule.parts(), [&](int part) { flash::forward_range(job, workspace.part(part), schedule.range(part)); });
}

}  // namespace mezzo::kernels
