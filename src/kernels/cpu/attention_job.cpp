// attention_job.cpp - the parts of attention_job.h that are not inline.
#include "kernels/cpu/attention_job.h"

#include <limits>

#include <mezzo/runtime.h>

#include "core/fail.h"

namespace mezzo::kernels::flash {

Job::Job(const Attention& attention)
    : a(attention),
      engine(a.dtype == bf16 && active_isa() == Isa::avx512_bf16 ? bf16_engine() : f32_engine()),
      group(a.h / a.h_kv),
      units(a.b * a.h_kv),
      d_units(blocks_of(a.d, engine.pair)),
      d_lanes(round_up(a.d, engine.lanes)),
      shift(a.tk - a.tq) {}

Attention normalized(Attention a, std::initializer_list<HeadStrides*> with) {
  MEZZO_CHECK(a.h_kv > 0 && a.h % a.h_kv == 0);
  MEZZO_CHECK(!a.mask || ((a.mask_dtype == boolean || a.mask_dtype == f32) && (a.mask_stride_k == 0 || a.mask_stride_k == 1)));
  MEZZO_CHECK(a.dropout >= 0 && a.dropout <= 1);
  if (a.tq != 1) return a;
  const std::int64_t group = a.h / a.h_kv;
  const auto regroup = [&](HeadStrides& s) { s = {s.b, s.h * group, s.h}; };
  regroup(a.q), regroup(a.out), regroup(a.mask_strides);
  for (HeadStrides* s : with) regroup(*s);
  a.h = a.h_kv;
  a.tq = group;
  a.causal = false;  // the one query is the last: it sees every key
  return a;
}

int Schedule::parts_for(std::int64_t scores, std::int64_t d) {
  constexpr std::int64_t kGrain = 1 << 20;  // multiply-adds (of each product) that are worth a thread
  return static_cast<int>(std::clamp<std::int64_t>(scores * d / kGrain, 1, num_threads()));
}

bool Masks::fill(const Job& job, std::int64_t b, std::int64_t h, std::int64_t row, std::int64_t key, QueriesByKeys& block) const {
  const Attention& a = job.a;
  if (bias) {
    const std::int64_t at = b * a.mask_strides.b + h * a.mask_strides.h + row * a.mask_strides.t + key * a.mask_stride_k;
    const auto* p = static_cast<const std::byte*>(a.mask) + at * static_cast<std::int64_t>(size_of(a.mask_dtype));
    if (!fill_bias({a.mask_dtype, p, a.mask_strides.t, a.mask_stride_k}, block.rows, block.keys, bias)) return false;
  }
  if (keep) fill_keep({a.dropout, a.seed, a.offset, ((b * a.h + h) * a.tq + row) * a.tk + key, a.tk}, block, keep);
  block.bias = bias;
  block.keep = keep;
  return true;
}

bool sees_nothing(const Job& job, std::int64_t b, std::int64_t h, std::int64_t row) {
  const Attention& a = job.a;
  const std::int64_t seen = job.keys_seen(row + 1);
  if (!a.mask) return seen == 0;
  const std::int64_t at = b * a.mask_strides.b + h * a.mask_strides.h + row * a.mask_strides.t;
  for (std::int64_t j = 0; j < seen; ++j) {
    const std::int64_t i = at + j * a.mask_stride_k;
    const bool hidden = a.mask_dtype == f32 ? static_cast<const float*>(a.mask)[i] == -std::numeric_limits<float>::infinity()
                                            : static_cast<const std::uint8_t*>(a.mask)[i] == 0;
    if (!hidden) return false;
  }
  return true;
}

}  // namespace mezzo::kernels::flash
