// attention.cpp - attention and its backward: blocks of queries and keys, cut among threads, handed to an engine.
//
// Storage T; scores, softmax and accumulators in f32, one rounding on store. Native bf16: P and dS are rounded to bf16 for their products.
// A unit is the queries of one group of heads with their one key/value head. The list of its blocks, for all units, is cut into contiguous
// ranges of nearly equal cost, one for each thread; a thread packs the keys and values of a unit once for all its blocks in it. The forward's
// bits do not depend on the cut. In the backward a unit that threads share has its dq summed from their parts, in the order of the threads.
#include <algorithm>
#include <cstring>
#include <limits>

#include <mezzo/runtime.h>

#include "core/fail.h"
#include "core/parallel.h"
#include "kernels/cpu/attention_engine.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/attention.h"

namespace mezzo::kernels {
namespace flash {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
std::int64_t blocks_of(std::int64_t n, std::int64_t block) { return (n + block - 1) / block; }

/// What both directions need to know.
struct Job {
  const Attention& a;
  const Engine& engine;
  std::int64_t group, units, d_units, d_lanes;
  std::int64_t shift;  // row i sees keys j <= i + shift (causal)

  explicit Job(const Attention& attention)
      : a(attention), engine(attention.dtype == bf16 && active_isa() == Isa::avx512_bf16 ? bf16_engine() : f32_engine()), group(a.h / a.h_kv),
        units(a.b * a.h_kv), d_units(blocks_of(a.d, engine.pair)), d_lanes(round_up(a.d, engine.lanes)), shift(a.tk - a.tq) {}

  /// Keys that rows [.., end) see.
  std::int64_t keys_seen(std::int64_t end) const { return a.causal ? std::clamp<std::int64_t>(end + shift, 0, a.tk) : a.tk; }
  /// The first row that sees key j.
  std::int64_t first_row(std::int64_t j) const { return a.causal ? std::clamp<std::int64_t>(j - shift, 0, a.tq) : 0; }
  Sight sight(std::int64_t row, std::int64_t key, int keys) const { return a.causal ? Sight{row + shift + 1 - key, 1} : Sight{keys, 0}; }

  Rows rows(const void* p, const HeadStrides& s, std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end) const {
    return {a.dtype, static_cast<const std::byte*>(p) + (b * s.b + h * s.h + begin * s.t) * static_cast<std::int64_t>(size_of(a.dtype)), s.t, end - begin, a.d};
  }
  MutableRows rows(void* p, const HeadStrides& s, std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end) const {
    return {a.dtype, static_cast<std::byte*>(p) + (b * s.b + h * s.h + begin * s.t) * static_cast<std::int64_t>(size_of(a.dtype)), s.t, end - begin, a.d};
  }

  Ahead nothing_ahead() const {
    Ahead ahead;
    ahead.row_bytes = a.d * static_cast<std::int64_t>(size_of(a.dtype));
    return ahead;
  }

  /// Units of a packed operand: n rows as lanes (pack_columns), or as the contraction (pack_panels).
  std::int64_t columns_size(std::int64_t n) const { return round_up(n, engine.lanes) * d_units; }
  std::int64_t panels_size(std::int64_t n) const { return d_lanes * blocks_of(n, engine.pair); }
  /// From row `row` on, of n packed rows.
  Panels columns(const Unit* packed, std::int64_t n, std::int64_t row) const {
    return {packed + row * d_units, 2 * engine.lanes * d_units, 0, static_cast<int>(std::min<std::int64_t>(round_up(n, engine.lanes) - row, kKeys))};
  }
  Panels panels(const Unit* packed, std::int64_t n, std::int64_t row) const {
    return {packed, 2 * engine.lanes * blocks_of(n, engine.pair), row / engine.pair, static_cast<int>(d_lanes)};
  }
};

// ---- the cut among threads ---------------------------------------------------------------------------

/// A place in the list of blocks of all units.
struct Place { std::int64_t unit, block; };

struct Schedule {
  std::int64_t units, blocks, cost;  // blocks and cost of one unit
  int parts;

  template <class Cost>
  Schedule(const Job& job, std::int64_t blocks_, const Cost& cost_of) : units(job.units), blocks(blocks_), cost(0) {
    for (std::int64_t i = 0; i < blocks; ++i) cost += cost_of(i);
    constexpr std::int64_t kGrain = 1 << 20;  // scores times d that are worth a thread
    parts = static_cast<int>(std::clamp<std::int64_t>(units * cost * job.a.d / kGrain, 1, num_threads()));
  }
  /// Where part p begins: at the block whose begin is nearest to p / parts of the whole cost.
  template <class Cost>
  Place begin(int p, const Cost& cost_of) const {
    if (p == parts) return {units, 0};
    const std::int64_t target = units * cost / parts * p;
    Place place{target / cost, 0};
    for (std::int64_t rest = target % cost; place.block < blocks && 2 * rest > cost_of(place.block); ++place.block) rest -= cost_of(place.block);
    return place.block == blocks ? Place{place.unit + 1, 0} : place;
  }
};

/// Blocks [begin, end) of one unit.
struct Span {
  std::int64_t unit, begin, end;
  bool any() const { return begin < end; }
};

/// The blocks of one thread, unit by unit.
struct Range {
  Place from, to;
  std::int64_t blocks;  // of a unit
  Span first() const { return of(from.unit, from.block); }
  Span next(const Span& span) const { return of(span.unit + 1, 0); }

 private:
  Span of(std::int64_t unit, std::int64_t begin) const { return {unit, begin, unit < to.unit ? blocks : unit == to.unit ? to.block : 0}; }
};

/// Adds rows to what the products prefetch while they run: into L2, the last added first. What would crowd L2 is left to the hardware.
template <class AnyRows>
void look_ahead(Ahead& ahead, const AnyRows& x) {
  const std::int64_t size = size_of(x.dtype);
  if (x.rows > 0 && x.rows * x.d * size <= 64 << 10) ahead.spans[ahead.count++] = {static_cast<const char*>(x.p), x.stride * size, x.rows};
}

/// Cuts one block of memory into arrays; without memory it only counts. The odd cache line between keeps arrays off each other's cache sets.
class Carver {
 public:
  explicit Carver(void* base = nullptr) : base_(static_cast<std::byte*>(base)) {}
  float* take(std::int64_t n) {
    float* const p = base_ ? reinterpret_cast<float*>(base_ + bytes_) : nullptr;
    bytes_ += round_up(n * static_cast<std::int64_t>(sizeof(float)), 64) + 64;
    return p;
  }
  std::size_t bytes() const { return static_cast<std::size_t>(bytes_); }

 private:
  std::byte* base_;
  std::int64_t bytes_ = 0;
};

template <class Work>
std::size_t size_of_work(const Job& job) {
  Carver carver;
  Work(job, carver);
  return carver.bytes();
}

constexpr std::int64_t kPatch = kQueries * kStride;

/// The bias and dropout of blocks, where there are any.
struct Masks {
  float *bias, *keep;
  Masks(const Job& job, Carver& c) : bias(job.a.mask ? c.take(kPatch) : nullptr), keep(job.a.dropout > 0 ? c.take(kPatch) : nullptr) {}

  /// For head h of batch b, the block's queries from `row` and keys from `key`. False if the mask hides them all.
  bool fill(const Job& job, std::int64_t b, std::int64_t h, std::int64_t row, std::int64_t key, QueriesByKeys& block) const {
    const Attention& a = job.a;
    if (bias) {
      const std::int64_t at = b * a.mask_strides.b + h * a.mask_strides.h + row * a.mask_strides.t + key * a.mask_stride_k;
      const MaskPatch patch{a.mask_dtype, static_cast<const std::byte*>(a.mask) + at * static_cast<std::int64_t>(size_of(a.mask_dtype)), a.mask_strides.t, a.mask_stride_k};
      if (!fill_bias(patch, block.rows, block.keys, bias)) return false;
    }
    if (keep) fill_keep(a.dropout, a.seed, a.offset, ((b * a.h + h) * a.tq + row) * a.tk + key, a.tk, block.rows, block.keys, keep);
    block.bias = bias;
    block.keep = keep;
    return true;
  }
};

/// Whether causality and the mask hide every key from a row.
bool sees_nothing(const Job& job, std::int64_t b, std::int64_t h, std::int64_t row) {
  const Attention& a = job.a;
  const std::int64_t seen = job.keys_seen(row + 1);
  if (!a.mask) return seen == 0;
  const std::int64_t at = b * a.mask_strides.b + h * a.mask_strides.h + row * a.mask_strides.t;
  for (std::int64_t j = 0; j < seen; ++j) {
    const std::int64_t i = at + j * a.mask_stride_k;
    if (a.mask_dtype == f32 ? static_cast<const float*>(a.mask)[i] != -kInfinity : static_cast<const std::uint8_t*>(a.mask)[i] != 0) return false;
  }
  return true;
}

// ---- forward ---------------------------------------------------------------------------------------

/// Queries [begin, end) of one head.
struct Queries { std::int64_t b, h, begin, end; };

struct ForwardJob : Job {
  const void *q, *k, *v;
  void* out;
  float* lse;
  std::int64_t query_blocks;  // of one head
  std::int64_t blocks;        // of a unit; those of its first head come first

  ForwardJob(const Attention& a, const void* q, const void* k, const void* v, void* out, float* lse)
      : Job(a), q(q), k(k), v(v), out(out), lse(lse), query_blocks(blocks_of(a.tq, kQueries)), blocks(group * query_blocks) {}
  Queries queries(Place at) const {
    const std::int64_t begin = at.block % query_blocks * kQueries;
    return {at.unit / a.h_kv, at.unit % a.h_kv * group + at.block / query_blocks, begin, std::min(a.tq, begin + kQueries)};
  }
  Rows rows_of_q(const Queries& at) const { return rows(q, a.q, at.b, at.h, at.begin, at.end); }
  MutableRows rows_of_out(const Queries& at) const { return rows(out, a.out, at.b, at.h, at.begin, at.end); }
  Rows rows_of_k(std::int64_t unit, std::int64_t begin, std::int64_t end) const { return rows(k, a.k, unit / a.h_kv, unit % a.h_kv, begin, end); }
  Rows rows_of_v(std::int64_t unit, std::int64_t begin, std::int64_t end) const { return rows(v, a.v, unit / a.h_kv, unit % a.h_kv, begin, end); }
  std::int64_t cost(std::int64_t block) const {
    const Queries at = queries({0, block});
    return 1 + (at.end - at.begin) * keys_seen(at.end);
  }
};

struct ForwardWork {
  Unit *keys_t, *values;  // packed, of the unit
  Unit* q;                // of the block, as all below
  float *scores, *out, *top, *sum, *fresh, *lse;
  Unit* p;
  Masks masks;

  ForwardWork(const Job& job, Carver& c)
      : keys_t(c.take(job.columns_size(job.a.tk))), values(c.take(job.panels_size(job.a.tk))), q(c.take(kQueries * job.d_units)), scores(c.take(kPatch)),
        out(c.take(kQueries * job.d_lanes)), top(c.take(kQueries)), sum(c.take(kQueries)), fresh(c.take(2 * kQueries)), lse(c.take(kQueries)),
        p(c.take(kPatch)), masks(job, c) {}
};

/// One block of queries against the `packed` first keys of its unit.
void forward_block(const ForwardJob& job, const ForwardWork& work, const Queries& at, std::int64_t packed, Ahead& ahead) {
  const Attention& a = job.a;
  const std::int64_t seen = job.keys_seen(at.end);
  job.engine.pack_rows(job.rows_of_q(at), work.q);
  std::fill_n(work.top, kQueries, -kInfinity);
  std::fill_n(work.sum, kQueries, 0.0f);
  std::fill_n(work.out, kQueries * job.d_lanes, 0.0f);

  Forward f;
  f.rows = static_cast<int>(at.end - at.begin);
  f.d_units = static_cast<int>(job.d_units);
  f.d_lanes = static_cast<int>(job.d_lanes);
  f.scale = static_cast<float>(a.scale) * kLog2E;
  f.ahead = &ahead;
  f.q = work.q;
  f.scores = work.scores;
  f.p = work.p;
  f.top = work.top;
  f.sum = work.sum;
  f.fresh = work.fresh;
  f.out = work.out;
  for (std::int64_t key = 0; key < seen; key += kKeys) {
    f.keys = static_cast<int>(std::min<std::int64_t>(kKeys, seen - key));
    f.sight = job.sight(at.begin, key, f.keys);
    f.keys_t = job.columns(work.keys_t, packed, key);
    f.values = job.panels(work.values, packed, key);
    if (work.masks.fill(job, at.b, at.h, at.begin, key, f)) job.engine.forward(f);
  }

  float* const factors = work.fresh;
  finish_rows(work.top, work.sum, factors, work.lse);
  for (int r = 0; r < f.rows; ++r) {
    if (work.sum[r] != 0) continue;
    if (sees_nothing(job, at.b, at.h, at.begin + r)) factors[r] = 0;
    else work.lse[r] = factors[r];  // its scores are all -inf: NaN, for the backward too
  }
  std::copy_n(work.lse, f.rows, job.lse + (at.b * a.h + at.h) * a.tq + at.begin);
  store_rows(work.out, job.d_lanes, factors, 1, job.rows_of_out(at));
}

void forward_range(const ForwardJob& job, const Range& range, void* memory) {
  Carver carver(memory);
  const ForwardWork work(job, carver);
  for (Span span = range.first(); span.any(); span = range.next(span)) {
    std::int64_t packed = 0;
    for (std::int64_t block = span.begin; block < span.end; ++block) packed = std::max(packed, job.keys_seen(job.queries({span.unit, block}).end));
    job.engine.pack_columns(job.rows_of_k(span.unit, 0, packed), work.keys_t);
    job.engine.pack_panels(job.rows_of_v(span.unit, 0, packed), work.values);
    const Span after = range.next(span);
    for (std::int64_t block = span.begin; block < span.end; ++block) {
      Ahead ahead = job.nothing_ahead();
      if (after.any()) {  // with each block of this unit a share of the next one's keys and values
        const std::int64_t n = span.end - span.begin, from = (block - span.begin) * job.a.tk / n, to = (block - span.begin + 1) * job.a.tk / n;
        look_ahead(ahead, job.rows_of_k(after.unit, from, to));
        look_ahead(ahead, job.rows_of_v(after.unit, from, to));
      }
      if (block + 1 < span.end) look_ahead(ahead, job.rows_of_q(job.queries({span.unit, block + 1})));
      else if (after.any()) look_ahead(ahead, job.rows_of_q(job.queries({after.unit, after.begin})));
      const Queries at = job.queries({span.unit, block});
      look_ahead(ahead, job.rows_of_out(at));
      forward_block(job, work, at, packed, ahead);
    }
  }
}

void forward(Queue& queue, const ForwardJob& job) {
  const auto cost = [&](std::int64_t block) { return job.cost(block); };
  const Schedule schedule(job, job.blocks, cost);
  const std::size_t bytes = size_of_work<ForwardWork>(job);
  const mezzo::Block memory = queue.scratch(bytes * static_cast<std::size_t>(schedule.parts));
  parallel_parts(schedule.parts, [&](int part) {
    forward_range(job, {schedule.begin(part, cost), schedule.begin(part + 1, cost), job.blocks}, memory.as<std::byte>() + bytes * static_cast<std::size_t>(part));
  });
}

// ---- backward --------------------------------------------------------------------------------------

struct BackwardJob : Job {
  const AttentionGrad& g;
  const void *q, *k, *v, *out;
  const float* lse;
  const void* dout;
  void *dq, *dk, *dv;
  std::int64_t key_blocks;  // one without keys too: it writes the zeros of dq

  BackwardJob(const Attention& a, const AttentionGrad& g, const void* q, const void* k, const void* v, const void* out, const float* lse, const void* dout,
              void* dq, void* dk, void* dv)
      : Job(a), g(g), q(q), k(k), v(v), out(out), lse(lse), dout(dout), dq(dq), dk(dk), dv(dv), key_blocks(std::max<std::int64_t>(1, blocks_of(a.tk, kKeys))) {}
  std::int64_t cost(std::int64_t block) const {
    return 1 + (std::min(a.tk, (block + 1) * kKeys) - block * kKeys) * (a.tq - first_row(block * kKeys));
  }
  std::int64_t dq_size() const { return a.tq * d_lanes; }
  /// All rows of a head's q, out, dout, dq.
  template <class P>
  auto of_head(P p, const HeadStrides& s, std::int64_t b, std::int64_t h) const { return rows(p, s, b, h, 0, a.tq); }
  /// Keys of a unit's k, v, dk, dv.
  template <class P>
  auto of_unit(P p, const HeadStrides& s, std::int64_t unit, std::int64_t begin, std::int64_t end) const {
    return rows(p, s, unit / a.h_kv, unit % a.h_kv, begin, end);
  }
};

struct BackwardWork {
  Unit *keys_t, *values_t, *keys;         // packed, of the unit
  float *dk, *dv;                         // of the unit
  Unit *q, *dout, *q_rows, *dout_rows;    // packed, of the head
  float *lse, *dots, *dq;                 // of the head
  float *scores, *dscores;                // of the block, as all below
  Unit *p, *ds, *ds_rows;
  Masks masks;

  BackwardWork(const Job& job, Carver& c)
      : keys_t(c.take(job.columns_size(job.a.tk))), values_t(c.take(job.columns_size(job.a.tk))), keys(c.take(job.panels_size(job.a.tk))),
        dk(c.take(job.a.tk * job.d_lanes)), dv(c.take(job.a.tk * job.d_lanes)), q(c.take(job.a.tq * job.d_units)), dout(c.take(job.a.tq * job.d_units)),
        q_rows(c.take(job.panels_size(job.a.tq))), dout_rows(c.take(job.panels_size(job.a.tq))), lse(c.take(job.a.tq)), dots(c.take(job.a.tq)),
        dq(c.take(job.a.tq * job.d_lanes)), scores(c.take(kPatch)), dscores(c.take(kPatch)), p(c.take(kPatch)), ds(c.take(kPatch)), ds_rows(c.take(kPatch)),
        masks(job, c) {}
};

/// Keys [begin, end) of a unit against the queries of one of its heads. dq (Tq, d_lanes) is added to, as are dk and dv of the work.
void backward_head(const BackwardJob& job, const BackwardWork& work, std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, float* dq,
                   Ahead& ahead) {
  const Attention& a = job.a;
  const std::int64_t top = job.first_row(begin) / kQueries * kQueries, rows = a.tq - top;  // rows above see none of these keys
  const Rows q = job.rows(job.q, a.q, b, h, top, a.tq), dout = job.rows(job.dout, job.g.dout, b, h, top, a.tq);
  job.engine.pack_rows(q, work.q);
  job.engine.pack_rows(dout, work.dout);
  job.engine.pack_panels(q, work.q_rows);
  job.engine.pack_panels(dout, work.dout_rows);
  dot_rows(dout, job.rows(job.out, a.out, b, h, top, a.tq), work.dots);
  const float* const lse = job.lse + (b * a.h + h) * a.tq + top;
  for (std::int64_t i = 0; i < rows; ++i) work.lse[i] = lse[i] * kLog2E;

  Backward f;
  f.ahead = &ahead;
  f.d_units = static_cast<int>(job.d_units);
  f.d_lanes = static_cast<int>(job.d_lanes);
  f.scale = static_cast<float>(a.scale) * kLog2E;
  f.scores = work.scores;
  f.dscores = work.dscores;
  f.p = work.p;
  f.ds = work.ds;
  f.ds_rows = work.ds_rows;
  for (std::int64_t key = begin; key < end; key += kKeys) {
    f.keys = static_cast<int>(std::min<std::int64_t>(kKeys, end - key));
    f.keys_t = job.columns(work.keys_t, end - begin, key - begin);
    f.values_t = job.columns(work.values_t, end - begin, key - begin);
    f.keys_rows = job.panels(work.keys, end - begin, key - begin);
    f.dk = work.dk + (key - begin) * job.d_lanes;
    f.dv = work.dv + (key - begin) * job.d_lanes;
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

/// The part of dq that a thread computes of a unit it shares: (group, Tq, d_lanes). A thread shares at most its first and its last unit.
struct Shares {
  float* p;
  std::int64_t size;  // of one
  float* share(int part, bool from_first_block) const { return p + (2 * part + from_first_block) * size; }
};

/// What follows head i of a span: its own dq and, with the last head, dk and dv; the next head's operands; a share of the next unit's.
Ahead ahead_of(const BackwardJob& job, const Span& span, const Span& after, std::int64_t i, std::int64_t k0, std::int64_t k1, bool whole) {
  const Attention& a = job.a;
  const auto head = [&](std::int64_t unit, std::int64_t j) { return unit % a.h_kv * job.group + j; };
  const bool last = i + 1 == job.group;
  Ahead ahead = job.nothing_ahead();
  if (after.any()) {
    look_ahead(ahead, job.of_unit(job.v, a.v, after.unit, i * a.tk / job.group, (i + 1) * a.tk / job.group));
    look_ahead(ahead, job.of_unit(job.k, a.k, after.unit, i * a.tk / job.group, (i + 1) * a.tk / job.group));
  }
  if (!last || after.any()) {
    const std::int64_t unit = last ? after.unit : span.unit, b = unit / a.h_kv, h = head(unit, last ? 0 : i + 1);
    look_ahead(ahead, job.of_head(job.out, a.out, b, h));
    look_ahead(ahead, job.of_head(job.dout, job.g.dout, b, h));
    look_ahead(ahead, job.of_head(job.q, a.q, b, h));
  }
  if (last) {
    look_ahead(ahead, job.of_unit(job.dv, job.g.dv, span.unit, k0, k1));
    look_ahead(ahead, job.of_unit(job.dk, job.g.dk, span.unit, k0, k1));
  }
  if (whole) look_ahead(ahead, job.of_head(job.dq, job.g.dq, span.unit / a.h_kv, head(span.unit, i)));
  return ahead;
}

void backward_range(const BackwardJob& job, int part, const Range& range, const Shares& shares, void* memory) {
  const Attention& a = job.a;
  const auto scale = static_cast<float>(a.scale);
  Carver carver(memory);
  const BackwardWork work(job, carver);
  for (Span span = range.first(); span.any(); span = range.next(span)) {
    const bool whole = span.end - span.begin == job.key_blocks;
    const std::int64_t b = span.unit / a.h_kv, k0 = span.begin * kKeys, k1 = std::min(span.end * kKeys, a.tk);
    const Rows keys = job.of_unit(job.k, a.k, span.unit, k0, k1);
    job.engine.pack_columns(keys, work.keys_t);
    job.engine.pack_columns(job.of_unit(job.v, a.v, span.unit, k0, k1), work.values_t);
    job.engine.pack_panels(keys, work.keys);
    std::fill_n(work.dk, (k1 - k0) * job.d_lanes, 0.0f);
    std::fill_n(work.dv, (k1 - k0) * job.d_lanes, 0.0f);
    for (std::int64_t i = 0; i < job.group; ++i) {
      const std::int64_t h = span.unit % a.h_kv * job.group + i;
      float* const dq = whole ? work.dq : shares.share(part, span.begin == 0) + i * job.dq_size();
      std::fill_n(dq, job.dq_size(), 0.0f);
      Ahead ahead = ahead_of(job, span, range.next(span), i, k0, k1, whole);
      backward_head(job, work, b, h, k0, k1, dq, ahead);
      if (whole) store_rows(dq, job.d_lanes, nullptr, scale, job.of_head(job.dq, job.g.dq, b, h));
    }
    store_rows(work.dk, job.d_lanes, nullptr, scale, job.of_unit(job.dk, job.g.dk, span.unit, k0, k1));
    store_rows(work.dv, job.d_lanes, nullptr, 1, job.of_unit(job.dv, job.g.dv, span.unit, k0, k1));
  }
}

void backward(Queue& queue, const BackwardJob& job) {
  const Attention& a = job.a;
  const auto cost = [&](std::int64_t block) { return job.cost(block); };
  const Schedule schedule(job, job.key_blocks, cost);
  const auto begin = [&](int part) { return schedule.begin(part, cost); };
  const std::size_t bytes = size_of_work<BackwardWork>(job);
  const mezzo::Block memory = queue.scratch(bytes * static_cast<std::size_t>(schedule.parts));
  bool shared = false;
  for (int part = 1; part < schedule.parts; ++part) shared = shared || begin(part).block > 0;
  Shares shares{nullptr, job.group * job.dq_size()};
  const mezzo::Block shared_memory = queue.scratch(shared ? static_cast<std::size_t>(2 * schedule.parts * shares.size) * sizeof(float) : 0);
  shares.p = shared_memory.as<float>();
  parallel_parts(schedule.parts, [&](int part) {
    backward_range(job, part, {begin(part), begin(part + 1), job.key_blocks}, shares, memory.as<std::byte>() + bytes * static_cast<std::size_t>(part));
  });

  // Where a unit is cut, the threads' parts of its dq are summed in their order, each row apart.
  for (int part = 1; part < schedule.parts; ++part) {
    const std::int64_t unit = begin(part).unit;
    const auto inside = [&](int p) { return p < schedule.parts && begin(p).unit == unit && begin(p).block > 0; };
    if (!inside(part) || inside(part - 1)) continue;  // no cut, or not the unit's first
    parallel_for(job.group * a.tq, 64, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t row = from; row < to; ++row) {
        float* const sum = shares.share(part - 1, true) + row * job.d_lanes;
        for (int other = part; inside(other); ++other) {
          if (begin(other + 1).unit == unit && begin(other + 1).block == begin(other).block) continue;  // an empty range
          const float* const x = shares.share(other, false) + row * job.d_lanes;
          for (std::int64_t i = 0; i < job.d_lanes; ++i) sum[i] += x[i];
        }
        const std::int64_t h = unit % a.h_kv * job.group + row / a.tq, i = row % a.tq;
        store_rows(sum, job.d_lanes, nullptr, static_cast<float>(a.scale), job.rows(job.dq, job.g.dq, unit / a.h_kv, h, i, i + 1));
      }
    });
  }
}

void check(const Attention& a) {
  MEZZO_CHECK(a.h_kv > 0 && a.h % a.h_kv == 0);
  MEZZO_CHECK(!a.mask || ((a.mask_dtype == boolean || a.mask_dtype == f32) && (a.mask_stride_k == 0 || a.mask_stride_k == 1)));
  MEZZO_CHECK(a.dropout >= 0 && a.dropout <= 1);
}

}  // namespace
}  // namespace flash

void attention(Queue& queue, const Attention& a, const void* q, const void* k, const void* v, void* out, float* lse) {
  flash::check(a);
  if (a.b * a.h * a.tq * a.d == 0) return;
  if (a.dtype == f64) {
    return ref::attention(a, static_cast<const double*>(q), static_cast<const double*>(k), static_cast<const double*>(v), static_cast<double*>(out), lse);
  }
  flash::forward(queue, flash::ForwardJob(a, q, k, v, out, lse));
}

void attention_backward(Queue& queue, const Attention& a, const AttentionGrad& g, const void* q, const void* k, const void* v, const void* out,
                        const float* lse, const void* dout, void* dq, void* dk, void* dv) {
  flash::check(a);
  if (a.b * a.h * (a.tq + a.tk) * a.d == 0) return;
  if (a.dtype == f64) {
    return ref::attention_backward(a, g, static_cast<const double*>(q), static_cast<const double*>(k), static_cast<const double*>(v),
                                   static_cast<const double*>(dout), static_cast<double*>(dq), static_cast<double*>(dk), static_cast<double*>(dv));
  }
  flash::backward(queue, flash::BackwardJob(a, g, q, k, v, out, lse, dout, dq, dk, dv));
}

}  // namespace mezzo::kernels
