// attention.h - attention as its formula says, in double, one row of scores at a time: the oracle, and the f64 kernel.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/allocator.h"
#include "core/philox.h"
#include "kernels/kernels.h"

namespace mezzo::kernels::ref {
namespace detail {

inline double wide(double x) { return x; }
template <class T> double wide(T x) { return static_cast<double>(static_cast<float>(x)); }

struct AttentionRow {
  std::int64_t b, h, i;
};  // batch, head, query

template <class T> T* at(T* p, const HeadStrides& s, std::int64_t b, std::int64_t h, std::int64_t t) { return p + b * s.b + h * s.h + t * s.t; }

/// What is added to the score of a key; -inf: hidden.
inline double attention_bias(const Attention& a, const AttentionRow& r, std::int64_t j) {
  constexpr double kHidden = -std::numeric_limits<double>::infinity();
  if (a.causal && j > r.i + a.tk - a.tq) return kHidden;
  if (!a.mask) return 0;
  const std::int64_t at = r.b * a.mask_strides.b + r.h * a.mask_strides.h + r.i * a.mask_strides.t + j * a.mask_stride_k;
  if (a.mask_dtype == f32) return static_cast<const float*>(a.mask)[at];
  return static_cast<const std::uint8_t*>(a.mask)[at] ? 0 : kHidden;
}

/// 0 or 1 / (1 - dropout).
inline double attention_keep(const Attention& a, const AttentionRow& r, std::int64_t j) {
  if (a.dropout == 0) return 1;
  const std::uint64_t e = static_cast<std::uint64_t>(((r.b * a.h + r.h) * a.tq + r.i) * a.tk + j);
  const bool keep = static_cast<double>(philox::uniform(philox::block(a.seed, a.offset + e / 4)[e % 4])) >= a.dropout;
  return keep ? 1 / (1 - a.dropout) : 0;
}

/// p (Tk) = softmax of the row's scores before dropout, 0 where hidden; all zeros if every key is hidden. Returns ln sum exp(scores).
template <class T> double attention_probabilities(const Attention& a, const AttentionRow& r, const T* q, const T* k, double* p) {
  constexpr double kHidden = -std::numeric_limits<double>::infinity();
  const T* row = at(q, a.q, r.b, r.h, r.i);
  double top = kHidden;
  bool all_hidden = true;
  for (std::int64_t j = 0; j < a.tk; ++j) {
    const double bias = attention_bias(a, r, j);
    double s = 0;
    const T* key = at(k, a.k, r.b, r.h / (a.h / a.h_kv), j);
    for (std::int64_t c = 0; c < a.d; ++c) s += wide(row[c]) * wide(key[c]);
    p[j] = bias == kHidden ? kHidden : s * a.scale + bias;
    all_hidden = all_hidden && bias == kHidden;
    if (!(p[j] <= top)) top = p[j];  // a NaN stays
  }
  double sum = 0;
  for (std::int64_t j = 0; j < a.tk; ++j) sum += p[j] = all_hidden ? 0 : std::exp(p[j] - top);
  for (std::int64_t j = 0; j < a.tk && !all_hidden; ++j) p[j] = attention_bias(a, r, j) == kHidden ? 0 : p[j] / sum;
  return all_hidden ? kHidden : top + std::log(sum);
}

}  // namespace detail

/// struct Attention's formula. T: the operands' type; O: the output's; L: that of lse.
template <class T, class O, class L> void attention(const Attention& a, const T* q, const T* k, const T* v, O* out, L* lse) {
  const Block work(static_cast<std::size_t>(a.tk + a.d) * sizeof(double), Memory::workspace);
  double *p = work.as<double>(), *sum = p + a.tk;
  for (std::int64_t b = 0; b < a.b; ++b)
    for (std::int64_t h = 0; h < a.h; ++h)
      for (std::int64_t i = 0; i < a.tq; ++i) {
        const detail::AttentionRow r{b, h, i};
        lse[(b * a.h + h) * a.tq + i] = static_cast<L>(detail::attention_probabilities(a, r, q, k, p));
        for (std::int64_t c = 0; c < a.d; ++c) sum[c] = 0;
        for (std::int64_t j = 0; j < a.tk; ++j) {
          if (p[j] == 0) continue;
          const double weight = p[j] * detail::attention_keep(a, r, j);
          const T* value = detail::at(v, a.v, b, h / (a.h / a.h_kv), j);
          for (std::int64_t c = 0; c < a.d; ++c) sum[c] += weight * detail::wide(value[c]);
        }
        O* to = detail::at(out, a.out, b, h, i);
        for (std::int64_t c = 0; c < a.d; ++c) to[c] = static_cast<O>(sum[c]);
      }
}

/// dv = P^T dout; dP = dout v^T; dS = P (dP - sum(P dP)); dq = scale dS k; dk = scale dS^T q, with P and dP as dropout leaves them.
/// Everything is recomputed from q, k and v. G: the gradients' type.
template <class T, class G>
void attention_backward(const Attention& a, const AttentionGrad& g, const T* q, const T* k, const T* v, const T* dout, G* dq, G* dk, G* dv) {
  const std::int64_t group = a.h / a.h_kv, n = a.tk * a.d;
  const Block work(static_cast<std::size_t>(2 * a.tk + a.d + 2 * n) * sizeof(double), Memory::workspace);
  double *p = work.as<double>(), *dp = p + a.tk, *dq_row = dp + a.tk, *dk_sum = dq_row + a.d, *dv_sum = dk_sum + n;
  for (std::int64_t b = 0; b < a.b; ++b)
    for (std::int64_t h_kv = 0; h_kv < a.h_kv; ++h_kv) {
      for (std::int64_t c = 0; c < 2 * n; ++c) dk_sum[c] = 0;
      for (std::int64_t h = h_kv * group; h < (h_kv + 1) * group; ++h)
        for (std::int64_t i = 0; i < a.tq; ++i) {
          const detail::AttentionRow r{b, h, i};
          detail::attention_probabilities(a, r, q, k, p);
          const T *row = detail::at(q, a.q, b, h, i), *dy = detail::at(dout, g.dout, b, h, i);
          double dot = 0;
          for (std::int64_t j = 0; j < a.tk; ++j) {
            const T* value = detail::at(v, a.v, b, h_kv, j);
            const double keep = detail::attention_keep(a, r, j);
            dp[j] = 0;
            if (p[j] == 0) continue;
            for (std::int64_t c = 0; c < a.d; ++c) {
              dp[j] += keep * detail::wide(dy[c]) * detail::wide(value[c]);
              dv_sum[j * a.d + c] += keep * p[j] * detail::wide(dy[c]);
            }
            dot += p[j] * dp[j];
          }
          for (std::int64_t c = 0; c < a.d; ++c) dq_row[c] = 0;
          for (std::int64_t j = 0; j < a.tk; ++j) {
            if (p[j] == 0) continue;
            const double ds = a.scale * p[j] * (dp[j] - dot);
            const T* key = detail::at(k, a.k, b, h_kv, j);
            for (std::int64_t c = 0; c < a.d; ++c) {
              dq_row[c] += ds * detail::wide(key[c]);
              dk_sum[j * a.d + c] += ds * detail::wide(row[c]);
            }
          }
          G* to = detail::at(dq, g.dq, b, h, i);
          for (std::int64_t c = 0; c < a.d; ++c) to[c] = static_cast<G>(dq_row[c]);
        }
      for (std::int64_t j = 0; j < a.tk; ++j) {
        G *dk_row = detail::at(dk, g.dk, b, h_kv, j), *dv_row = detail::at(dv, g.dv, b, h_kv, j);
        for (std::int64_t c = 0; c < a.d; ++c) {
          dk_row[c] = static_cast<G>(dk_sum[j * a.d + c]);
          dv_row[c] = static_cast<G>(dv_sum[j * a.d + c]);
        }
      }
    }
}

}  // namespace mezzo::kernels::ref
