// attention_engine.h - what one instruction set does for attention: packing, and the work on one block of queries and keys.
//
// Two engines share the loops of attention.cpp and attention_backward.cpp and the block algorithm of attention_block.inc: f32 arithmetic on any
// target (attention_f32.cpp: 16-bit operands are widened as they are packed), and native bf16 dot products (attention_bf16.cpp). Plain data only: the
// native file, compiled for its instruction set, must not share an inline function with anyone.
#pragma once

#include <cstddef>
#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::kernels::flash {

/// Four bytes of a packed operand: one f32, or `pair` bf16 values that are neighbours along the contraction.
using Unit = float;

inline constexpr int kQueries = 64;                // rows of a block
inline constexpr int kKeys = 128;                  // keys of a block
inline constexpr int kLanesMax = 16;               // f32 lanes of the widest vector
inline constexpr int kStride = kKeys + kLanesMax;  // of a row of scores, so that rows do not share cache sets

/// The right operand of a product, (contraction, lanes), in panels two vectors wide: panel p holds lanes [2N p, 2N p + w), w = 2N or (the last
/// one) N; within it, unit k of lane n is at [k w + n].
struct Panels {
  const Unit* at;        ///< the panel of lane 0
  std::ptrdiff_t step;   ///< units from one panel to the next
  std::ptrdiff_t first;  ///< unit of the contraction at which the product begins
  int lanes;             ///< stored from `at` on, a multiple of N
};

/// Which keys of the block row r sees: the first clamp(first + r step, 0, keys). Step is 1 for causal attention, else 0.
struct Sight {
  std::int64_t first;
  int step;
};

/// Memory that will be packed or stored next: the products prefetch it, a few rows with each register tile.
struct Ahead {
  struct Span {
    const char* p;
    std::ptrdiff_t stride;  // bytes from row to row
    std::int64_t rows;
  };
  static constexpr int kSpans = 8;
  Span spans[kSpans];
  int count = 0;
  std::int64_t row_bytes = 0;
};

/// One block of queries and keys, operands packed.
struct QueriesByKeys {
  int rows = 0, keys = 0;  ///< at most kQueries, kKeys
  int d_units = 0;         ///< units of d: the row length of q and dout
  int d_lanes = 0;         ///< d rounded up to whole vectors: the row length of the f32 accumulators
  Sight sight{};
  float scale = 1;              ///< of the scores, times log2(e)
  const Unit* q = nullptr;      ///< (rows, d_units)
  Panels keys_t{};              ///< contraction d, lanes keys
  const float* bias = nullptr;  ///< (rows, kStride): added to the scaled scores (log2 units); -inf hides the key. Null: none
  const float* keep = nullptr;  ///< (rows, kStride): 0 or 1 / (1 - dropout). Null: no dropout
  float* scores = nullptr;      ///< (kQueries, kStride), work
  Unit* p = nullptr;            ///< (kQueries, kStride), work
  Ahead* ahead = nullptr;
};

struct Forward : QueriesByKeys {
  Panels values{};         ///< contraction keys, lanes d
  float* top = nullptr;    ///< (kQueries) running maximum of the scores, in log2 units; starts at -inf
  float* sum = nullptr;    ///< (kQueries) running sum of 2^(score - top); starts at 0
  float* fresh = nullptr;  ///< (2, kQueries), work
  float* out = nullptr;    ///< (kQueries, d_lanes): sum of 2^(score - top) v; starts at 0
};

struct Backward : QueriesByKeys {
  const Unit* dout = nullptr;                         ///< (rows, d_units)
  Panels values_t{};                                  ///< contraction d, lanes keys
  Panels keys_rows{};                                 ///< contraction keys, lanes d
  Panels q_rows{}, dout_rows{};                       ///< contraction rows, lanes d
  const float* lse = nullptr;                         ///< (rows), in log2 units
  const float* dots = nullptr;                        ///< (rows): sum(dout * out)
  float* dscores = nullptr;                           ///< (kQueries, kStride), work
  Unit *ds = nullptr, *ds_rows = nullptr;             ///< (kQueries, kStride), work
  float *dq = nullptr, *dk = nullptr, *dv = nullptr;  ///< (rows or keys, d_lanes), added to; dq and dk still lack the factor `scale`
};

/// A matrix in the caller's memory: row r begins `stride` elements after row r - 1.
struct Rows {
  Dtype dtype = f32;
  const void* p = nullptr;
  std::int64_t stride = 0, rows = 0, d = 0;
};

struct MutableRows {
  Dtype dtype = f32;
  void* p = nullptr;
  std::int64_t stride = 0, rows = 0, d = 0;
};

struct Engine {
  int lanes;  ///< N: f32 lanes of a vector
  int pair;   ///< values in a unit
  /// (rows, units of d), padded with zeros to whole units.
  void (*pack_rows)(const Rows&, Unit* to);
  /// Panels with the rows as lanes and d as the contraction; lanes past the rows up to a whole vector are zero.
  void (*pack_columns)(const Rows&, Unit* to);
  /// Panels with d as lanes and the rows as the contraction; lanes past d up to a whole vector are zero, and so is the other half of an odd row.
  void (*pack_panels)(const Rows&, Unit* to);
  void (*forward)(const Forward&);
  void (*backward)(const Backward&);
};

/// f32 arithmetic on the active instruction set.
const Engine& f32_engine();
/// VDPBF16PS; only when active_isa() is avx512_bf16.
const Engine& bf16_engine();

}  // namespace mezzo::kernels::flash
