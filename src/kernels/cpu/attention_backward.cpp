// attention_backward.cpp - the gradients of attention: scores recomputed block by block, dq, dk and dv in fixed order.
//
// dv = P^T dout; dS = P (dout v^T - sum(dout out)); dq = scale dS k; dk = scale dS^T q (FlashAttention, arXiv 2205.14135, appendix B).
// Storage T; arithmetic and accumulators in f32, one rounding on store. With native bf16, P and dS are rounded to bf16 for their products.
// A thread owns blocks of keys of a unit, hence their dk and dv, which it sums over the heads of the group and the blocks of queries. dq it sums
// over its keys; where threads share a unit, their sums are added in the order of the threads.
#include "core/parallel.h"
#include "kernels/work_log.h"
#include "kernels/cpu/attention_job.h"
#include "kernels/ref/attention.h"

namespace mezzo::kernels {
namespace flash {
namespace {

struct BackwardJob : Job {
  AttentionGrad g;
  const void *q, *k, *v, *out;
  const float* lse;
  const void* dout;
  void *dq, *dk, *dv;

  std::int64_t key_blocks() const { return std::max<std::int64_t>(1, blocks_of(a.tk, kKeys)); }  // without keys too: dq is to become 0
  std::int64_t cost(std::int64_t block) const {
    const std::int64_t begin = block * kKeys, end = std::min(a.tk, begin + kKeys);
    return 1 + (end - begin) * (a.tq - first_row(begin));
  }
  /// All rows of a head.
  template <class P> auto whole_head(P* p, const HeadStrides& s, std::int64_t b, std::int64_t h) const { return head_rows(p, s, b, h, 0, a.tq); }
};

struct BackwardWork {
  Unit *keys_t, *values_t, *keys;       // packed, of the unit
  float *dk, *dv;                       // of the unit
  Unit *q, *dout, *q_rows, *dout_rows;  // packed, of the head
  float *lse, *dots, *dq;               // of the head
  float *scores, *dscores;              // of the block, as all below
  Unit *p, *ds, *ds_rows;
  Masks masks;

  BackwardWork(const Job& job, Carver& c)
      : keys_t(c.take(job.columns_size(job.a.tk))),
        values_t(c.take(job.columns_size(job.a.tk))),
        keys(c.take(job.panels_size(job.a.tk))),
        dk(c.take(job.a.tk * job.d_lanes)),
        dv(c.take(job.a.tk * job.d_lanes)),
        q(c.take(job.a.tq * job.d_units)),
        dout(c.take(job.a.tq * job.d_units)),
        q_rows(c.take(job.panels_size(job.a.tq))),
        dout_rows(c.take(job.panels_size(job.a.tq))),
        lse(c.take(job.a.tq)),
        dots(c.take(job.a.tq)),
        dq(c.take(job.a.tq * job.d_lanes)),
        scores(c.take(kPatch)),
        dscores(c.take(kPatch)),
        p(c.take(kPatch)),
        ds(c.take(kPatch)),
        ds_rows(c.take(kPatch)),
        masks(job, c) {}
};

/// The sums of dq over a thread's keys, of units that it shares with others: at most the one it begins in and the one it ends in.
class SharedDq {
 public:
  SharedDq(Queue& queue, const Job& job, const Schedule& schedule) : size_(job.a.tq * job.d_lanes), group_(job.group) {
    bool shared = false;
    for (int part = 1; part < schedule.parts(); ++part) shared = shared || schedule.begin(part).block > 0;
    if (shared) memory_ = queue.scratch(static_cast<std::size_t>(2 * schedule.parts() * group_ * size_) * sizeof(float));
  }
  /// (Tq, d_lanes) of head i of the group; first: the thread has the unit's first block.
  float* at(int part, bool first, std::int64_t i) const { return memory_.as<float>() + ((2 * part + first) * group_ + i) * size_; }

 private:
  std::int64_t size_, group_;
  Block memory_;
};

/// Keys [k0, k1) of a unit, as packed, against the queries of head h: added to dq (Tq, d_lanes), dk and dv.
void backward_head(const BackwardJob& job, const BackwardWork& work, std::int64_t b, std::int64_t h, std::int64_t k0, std::int64_t k1, float* dq,
                   Ahead& ahead) {
  const Attention& a = job.a;
  const std::int64_t top = job.first_row(k0) / kQueries * kQueries, rows = a.tq - top;  // the rows above see none of these keys
  const Rows q = job.head_rows(job.q, a.q, b, h, top, a.tq), dout = job.head_rows(job.dout, job.g.dout, b, h, top, a.tq);
  job.engine.pack_rows(q, work.q);
  job.engine.pack_rows(dout, work.dout);
  job.engine.pack_panels(q, work.q_rows);
  job.engine.pack_panels(dout, work.dout_rows);
  dot_rows(dout, job.head_rows(job.out, a.out, b, h, top, a.tq), work.dots);
  const float* const lse = job.lse + (b * a.h + h) * a.tq + top;
  for (std::int64_t i = 0; i < rows; ++i) work.lse[i] = lse[i] * kLog2E;

  Backward f;
  f.d_units = static_cast<int>(job.d_units);
  f.d_lanes = static_cast<int>(job.d_lanes);
  f.scale = static_cast<float>(a.scale) * kLog2E;
  f.scores = work.scores;
  f.p = work.p;
  f.ahead = &ahead;
  f.dscores = work.dscores;
  f.ds = work.ds;
  f.ds_rows = work.ds_rows;
  for (std::int64_t key = k0; key < k1; key += kKeys) {
    f.keys = static_cast<int>(std::min<std::int64_t>(kKeys, k1 - key));
    f.keys_t = job.columns(work.keys_t, k1 - k0, key - k0);
    f.values_t = job.columns(work.values_t, k1 - k0, key - k0);
    f.keys_rows = job.panels(work.keys, k1 - k0, key - k0);
    f.dk = work.dk + (key - k0) * job.d_lanes;
    f.dv = work.dv + (key - k0) * job.d_lanes;
    for (std::int64_t row = job.first_row(key) / kQueries * kQueries; row < a.tq; row += kQueries) {
      const std::int64_t at = row - top;
      f.rows = static_cast<int>(std::min<std::int64_t>(kQueries, a.tq - row));
      f.sight = job.sight(row, key, f.keys);
      f.q = work.q + at * job.d_units;
      f.dout = work.dout + at * job.d_units;
      f.q_rows = job.panels(work.q_rows, rows, at);
      f.dout_rows = job.panels(work.dout_rows, rows, at);
      f.lse = work.lse + at;
      f.dots = work.dots + at;
      f.dq = dq + row * job.d_lanes;
      if (work.masks.fill(job, b, h, row, key, f)) job.engine.backward(f);
    }
  }
}

/// What to prefetch while head i of a span is computed: its dq and with the last head dk and dv, the next head's operands, a share of the next
/// unit's keys and values.
Ahead ahead_of(const BackwardJob& job, const Span& span, const Span& after, std::int64_t i, std::int64_t k0, std::int64_t k1) {
  const Attention& a = job.a;
  const bool last = i + 1 == job.group;
  Ahead ahead = nothing_ahead(job);
  if (after.any()) {
    const std::int64_t from = i * a.tk / job.group, to = (i + 1) * a.tk / job.group;
    look_ahead(ahead, job.unit_rows(job.v, a.v, after.unit, from, to));
    look_ahead(ahead, job.unit_rows(job.k, a.k, after.unit, from, to));
  }
  if (!last || after.any()) {
    const std::int64_t unit = last ? after.unit : span.unit, b = job.batch(unit), h = job.head(unit, last ? 0 : i + 1);
    look_ahead(ahead, job.whole_head(job.out, a.out, b, h));
    look_ahead(ahead, job.whole_head(job.dout, job.g.dout, b, h));
    look_ahead(ahead, job.whole_head(job.q, a.q, b, h));
  }
  if (last) {
    look_ahead(ahead, job.unit_rows(job.dv, job.g.dv, span.unit, k0, k1));
    look_ahead(ahead, job.unit_rows(job.dk, job.g.dk, span.unit, k0, k1));
  }
  look_ahead(ahead, job.whole_head(job.dq, job.g.dq, job.batch(span.unit), job.head(span.unit, i)));
  return ahead;
}

void backward_range(const BackwardJob& job, const BackwardWork& work, const Range& range, const SharedDq& shared, int part) {
  const Attention& a = job.a;
  const auto scale = static_cast<float>(a.scale);
  for (Span span = range.first(); span.any(); span = range.next(span)) {
    const bool whole = span.end - span.begin == job.key_blocks();
    const std::int64_t k0 = span.begin * kKeys, k1 = std::min(span.end * kKeys, a.tk), b = job.batch(span.unit);
    const Rows keys = job.unit_rows(job.k, a.k, span.unit, k0, k1);
    job.engine.pack_columns(keys, work.keys_t);
    job.engine.pack_columns(job.unit_rows(job.v, a.v, span.unit, k0, k1), work.values_t);
    job.engine.pack_panels(keys, work.keys);
    std::fill_n(work.dk, (k1 - k0) * job.d_lanes, 0.0f);
    std::fill_n(work.dv, (k1 - k0) * job.d_lanes, 0.0f);
    for (std::int64_t i = 0; i < job.group; ++i) {
      const std::int64_t h = job.head(span.unit, i);
      float* const dq = whole ? work.dq : shared.at(part, span.begin == 0, i);
      std::fill_n(dq, a.tq * job.d_lanes, 0.0f);
      Ahead ahead = ahead_of(job, span, range.next(span), i, k0, k1);
      backward_head(job, work, b, h, k0, k1, dq, ahead);
      if (whole) store_rows(dq, job.d_lanes, nullptr, scale, job.whole_head(job.dq, job.g.dq, b, h));
    }
    store_rows(work.dk, job.d_lanes, nullptr, scale, job.unit_rows(job.dk, job.g.dk, span.unit, k0, k1));
    store_rows(work.dv, job.d_lanes, nullptr, 1, job.unit_rows(job.dv, job.g.dv, span.unit, k0, k1));
  }
}

/// dq of the unit in which part `first` ends and the next ones begin.
void add_shares(const BackwardJob& job, const Schedule& schedule, const SharedDq& shared, int first) {
  const std::int64_t unit = schedule.begin(first + 1).unit, tq = job.a.tq;
  parallel_for(job.group * tq, 64, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t row = from; row < to; ++row) {
      const std::int64_t i = row / tq, at = row % tq;
      float* const sum = shared.at(first, true, i) + at * job.d_lanes;
      for (int part = first + 1; part < schedule.parts() && schedule.begin(part).unit == unit; ++part) {
        if (!schedule.range(part).first().any()) continue;  // more threads than blocks
        const float* const share = shared.at(part, false, i) + at * job.d_lanes;
        for (std::int64_t c = 0; c < job.d_lanes; ++c) sum[c] += share[c];
      }
      store_rows(sum, job.d_lanes, nullptr, static_cast<float>(job.a.scale),
                 job.head_rows(job.dq, job.g.dq, job.batch(unit), job.head(unit, i), at, at + 1));
    }
  });
}

}  // namespace
}  // namespace flash

void attention_backward(Queue& queue, const Attention& given, const AttentionGrad& strides, const void* q, const void* k, const void* v,
                        const void* out, const float* lse, const void* dout, void* dq, void* dk, void* dv) {
  AttentionGrad g = strides;
  const Attention a = flash::normalized(given, {&g.dout, &g.dq});
  if (a.b * a.h * (a.tq + a.tk) * a.d == 0) return;
  if (auto* log = WorkLog::current()) log->add(a, 10);  // q k^T again, dout v^T, dv, dq, dk
  if (a.dtype == f64) {
    return ref::attention_backward(a, g, static_cast<const double*>(q), static_cast<const double*>(k), static_cast<const double*>(v),
                                   static_cast<const double*>(dout), static_cast<double*>(dq), static_cast<double*>(dk), static_cast<double*>(dv));
  }
  const flash::BackwardJob job{flash::Job(a), g, q, k, v, out, lse, dout, dq, dk, dv};
  const flash::Schedule schedule(queue, job, job.key_blocks(), [&](std::int64_t block) { return job.cost(block); });
  const flash::SharedDq shared(queue, job, schedule);
  const flash::Workspace<flash::BackwardWork> workspace(queue, job, schedule.parts());
  parallel_parts(schedule.parts(), [&](int part) { flash::backward_range(job, workspace.part(part), schedule.range(part), shared, part); });
  for (int part = 0; part + 1 < schedule.parts(); ++part) {
    const flash::Place begin = schedule.begin(part), end = schedule.begin(part + 1);
    if (end.block > 0 && (begin.unit < end.unit || begin.block == 0)) flash::add_shares(job, schedule, shared, part);
  }
}

}  // namespace mezzo::kernels
