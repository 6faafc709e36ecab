// attention_job.h - what attention's two directions share: geometry, the cut among threads, workspace, masks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/cpu/attention_engine.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/kernels.h"

namespace mezzo::kernels::flash {

inline constexpr float kLog2E = 1.44269504088896341f;

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }
inline std::int64_t blocks_of(std::int64_t n, std::int64_t block) { return (n + block - 1) / block; }

// ---- geometry --------------------------------------------------------------------------------------

/// A problem and the engine for it. A unit is one key/value head of one batch with the group of heads that share it.
struct Job {
  Attention a;
  const Engine& engine;
  std::int64_t group, units;      // heads of a unit
  std::int64_t d_units, d_lanes;  // d in units, and rounded up to whole vectors
  std::int64_t shift;             // causal: row i sees keys j <= i + shift

  explicit Job(const Attention&);

  /// Keys that rows [.., end) see.
  std::int64_t keys_seen(std::int64_t end) const { return a.causal ? std::clamp<std::int64_t>(end + shift, 0, a.tk) : a.tk; }
  /// The first row that sees a key.
  std::int64_t first_row(std::int64_t key) const { return a.causal ? std::clamp<std::int64_t>(key - shift, 0, a.tq) : 0; }
  Sight sight(std::int64_t row, std::int64_t key, int keys) const { return a.causal ? Sight{row + shift + 1 - key, 1} : Sight{keys, 0}; }

  std::int64_t batch(std::int64_t unit) const { return unit / a.h_kv; }
  std::int64_t head(std::int64_t unit, std::int64_t i) const { return unit % a.h_kv * group + i; }
  /// Rows [begin, end) of head `head` (of q, out, lse) or of a unit (of k, v).
  Rows head_rows(const void* p, const HeadStrides& s, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t end) const {
    return {a.dtype, static_cast<const std::byte*>(p) + offset(s, b, head, begin), s.t, end - begin, a.d};
  }
  MutableRows head_rows(void* p, const HeadStrides& s, std::int64_t b, std::int64_t head, std::int64_t begin, std::int64_t end) const {
    return {a.dtype, static_cast<std::byte*>(p) + offset(s, b, head, begin), s.t, end - begin, a.d};
  }
  template <class P> auto unit_rows(P* p, const HeadStrides& s, std::int64_t unit, std::int64_t begin, std::int64_t end) const {
    return head_rows(p, s, unit / a.h_kv, unit % a.h_kv, begin, end);
  }

  /// Units that n packed rows take, as lanes (pack_columns) or as the contraction (pack_panels).
  std::int64_t columns_size(std::int64_t n) const { return round_up(n, engine.lanes) * d_units; }
  std::int64_t panels_size(std::int64_t n) const { return d_lanes * blocks_of(n, engine.pair); }
  /// Of n packed rows, those from `row` on.
  Panels columns(const Unit* packed, std::int64_t n, std::int64_t row) const {
    return {packed + row * d_units, 2 * engine.lanes * d_units, 0, static_cast<int>(std::min<std::int64_t>(round_up(n, engine.lanes) - row, kKeys))};
  }
  Panels panels(const Unit* packed, std::int64_t n, std::int64_t row) const {
    return {packed, 2 * engine.lanes * blocks_of(n, engine.pair), row / engine.pair, static_cast<int>(d_lanes)};
  }

 private:
  std::int64_t offset(const HeadStrides& s, std::int64_t b, std::int64_t h, std::int64_t t) const {
    return (b * s.b + h * s.h + t * s.t) * static_cast<std::int64_t>(size_of(a.dtype));
  }
};

/// Checks `a`. One query a head (generation): the heads of a group become the rows of one head, so that their keys are packed and read once;
/// `with` are the strides of further operands like q.
Attention normalized(Attention a, std::initializer_list<HeadStrides*> with = {});

// ---- the cut among threads -------------------------------------------------------------------------

/// A place in the list of the blocks of all units.
struct Place {
  std::int64_t unit, block;
};

/// Blocks [begin, end) of one unit.
struct Span {
  std::int64_t unit, begin, end;
  bool any() const { return begin < end; }
};

/// The blocks of one thread, unit by unit: `for (Span s = range.first(); s.any(); s = range.next(s))`.
struct Range {
  Place from, to;
  std::int64_t blocks;  // of a unit
  Span first() const { return span(from.unit, from.block); }
  Span next(const Span& s) const { return span(s.unit + 1, 0); }

 private:
  Span span(std::int64_t unit, std::int64_t begin) const { return {unit, begin, unit < to.unit ? blocks : unit == to.unit ? to.block : 0}; }
};

/// Cuts the list into a contiguous range for each thread, of nearly equal cost: a function of the costs and num_threads() only.
class Schedule {
 public:
  /// cost(block): of each block of a unit, in scores; at least 1.
  template <class Cost> Schedule(Queue& queue, const Job& job, std::int64_t blocks, const Cost& cost) : blocks_(blocks) {
    std::int64_t unit_cost = 0;
    for (std::int64_t i = 0; i < blocks; ++i) unit_cost += cost(i);
    parts_ = parts_for(job.units * unit_cost, job.a.d);
    memory_ = queue.scratch(static_cast<std::size_t>(parts_ + 1) * sizeof(Place));
    for (int part = 0; part < parts_; ++part) {  // at the block whose begin is nearest to the part's share
      const std::int64_t share = job.units * unit_cost * part / parts_;
      Place place{share / unit_cost, 0};
      for (std::int64_t rest = share % unit_cost; place.block < blocks && 2 * rest > cost(place.block); ++place.block) rest -= cost(place.block);
      places()[part] = place.block < blocks ? place : Place{place.unit + 1, 0};
    }
    places()[parts_] = {job.units, 0};
  }
  int parts() const { return parts_; }
  Place begin(int part) const { return places()[part]; }
  Range range(int part) const { return {begin(part), begin(part + 1), blocks_}; }

 private:
  static int parts_for(std::int64_t scores, std::int64_t d);
  Place* places() const { return memory_.as<Place>(); }

  std::int64_t blocks_;
  int parts_ = 1;
  Block memory_;
};

// ---- workspace -------------------------------------------------------------------------------------

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

/// A Work, built from (job, carver), for each part of a schedule.
template <class Work> class Workspace {
 public:
  Workspace(Queue& queue, const Job& job, int parts) : job_(job) {
    Carver count;
    Work(job, count);
    bytes_ = count.bytes();
    memory_ = queue.scratch(bytes_ * static_cast<std::size_t>(parts));
  }
  Work part(int i) const {
    Carver carver(memory_.as<std::byte>() + bytes_ * static_cast<std::size_t>(i));
    return Work(job_, carver);
  }

 private:
  const Job& job_;
  std::size_t bytes_;
  Block memory_;
};

inline constexpr std::int64_t kPatch = kQueries * kStride;

/// The mask and the dropout of one block, where there are any.
struct Masks {
  float *bias, *keep;
  Masks(const Job& job, Carver& c) : bias(job.a.mask ? c.take(kPatch) : nullptr), keep(job.a.dropout > 0 ? c.take(kPatch) : nullptr) {}
  /// For head h of batch b, the block's queries from `row` and keys from `key`. False if the mask hides them all.
  bool fill(const Job&, std::int64_t b, std::int64_t h, std::int64_t row, std::int64_t key, QueriesByKeys& block) const;
};

/// Whether causality and the mask hide every key from a row.
bool sees_nothing(const Job&, std::int64_t b, std::int64_t h, std::int64_t row);

// ---- prefetching -----------------------------------------------------------------------------------

inline Ahead nothing_ahead(const Job& job) {
  Ahead ahead;
  ahead.row_bytes = job.a.d * static_cast<std::int64_t>(size_of(job.a.dtype));
  return ahead;
}
/// Adds rows to what the products prefetch as they run, the last added first. What would crowd L2 is left to the hardware.
template <class AnyRows> void look_ahead(Ahead& ahead, const AnyRows& x) {
  if (x.rows == 0 || x.rows * ahead.row_bytes > 64 << 10) return;
  ahead.spans[ahead.count++] = {static_cast<const char*>(x.p), x.stride * static_cast<std::int64_t>(size_of(x.dtype)), x.rows};
}

}  // namespace mezzo::kernels::flash
