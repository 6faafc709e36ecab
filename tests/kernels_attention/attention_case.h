// attention_case.h - one attention problem with its operands in guarded memory, its oracle in double, and bounds on the error of a kernel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <mezzo/dtype.h>
#include <mezzo/runtime.h>

#include "kernels/kernels.h"
#include "kernels/ref/attention.h"

namespace mezzo::test {

using kernels::Attention;
using kernels::AttentionGrad;
using kernels::HeadStrides;

inline constexpr double kUnit32 = 0x1p-24;
template <class T> double to_double(T x) {
  if constexpr (sizeof(T) == 2) return static_cast<double>(static_cast<float>(x));
  else return static_cast<double>(x);
}
template <class T> T from_double(double x) {
  if constexpr (sizeof(T) == 2) return T(static_cast<float>(x));
  else return static_cast<T>(x);
}

enum class Layout { heads_first /*(B, H, T, D)*/, tokens_first /*(B, T, H, D)*/, packed /*(B, T, 3, H, D), one of the three*/, gaps /*rows apart*/ };
enum class MaskKind { none, boolean_full, boolean_keys /*(B, 1, 1, Tk)*/, boolean_rows /*(1, H, Tq, 1)*/, additive /*with -inf, (B, H, Tq, Tk)*/ };

/// A (B, H, T, D) operand somewhere in guarded memory: what is not part of it holds the fill byte, before and after.
template <class T> class Heads {
 public:
  HeadStrides strides;

  Heads(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t d, Layout layout) : b_(b), h_(h), t_(t), d_(d) {
    switch (layout) {
      case Layout::heads_first: strides = {h * t * d, t * d, d}; break;
      case Layout::tokens_first: strides = {t * h * d, d, h * d}; break;
      case Layout::packed: strides = {3 * t * h * d, d, 3 * h * d}; break;
      case Layout::gaps: strides = {h * (t * (d + 3) + 5), t * (d + 3) + 5, d + 3}; break;
    }
    bytes_.assign(static_cast<std::size_t>((b * strides.b + 2 * kGuard) * static_cast<std::int64_t>(sizeof(T))), kFill);
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data()) + kGuard; }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data()) + kGuard; }
  T& at(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t c) { return data()[b * strides.b + h * strides.h + t * strides.t + c]; }
  T at(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t c) const { return data()[b * strides.b + h * strides.h + t * strides.t + c]; }

  template <class F> void each(F f) {  // f(b, h, t, c, element)
    for (std::int64_t b = 0; b < b_; ++b)
      for (std::int64_t h = 0; h < h_; ++h)
        for (std::int64_t t = 0; t < t_; ++t)
          for (std::int64_t c = 0; c < d_; ++c) f(b, h, t, c, at(b, h, t, c));
  }
  void randomize(std::mt19937& engine, double scale = 1) {
    std::normal_distribution<double> normal(0, scale);
    each([&](auto, auto, auto, auto, T& x) { x = from_double<T>(normal(engine)); });
  }
  /// Whether memory around the operand is as it was.
  bool intact() const {
    Heads copy = *this;
    copy.each([](auto, auto, auto, auto, T& x) { std::memset(static_cast<void*>(&x), kFill, sizeof(T)); });
    return std::all_of(copy.bytes_.begin(), copy.bytes_.end(), [](unsigned char b) { return b == kFill; });
  }
  bool same_bits(const Heads& o) const {
    bool same = true;
    Heads copy = *this;
    copy.each([&](auto b, auto h, auto t, auto c, T& x) {
      const T y = o.at(b, h, t, c);
      same = same && std::memcmp(&x, &y, sizeof(T)) == 0;
    });
    return same;
  }

 private:
  static constexpr std::int64_t kGuard = 32;  // elements
  static constexpr unsigned char kFill = 0xa5;
  std::int64_t b_, h_, t_, d_;
  std::vector<unsigned char> bytes_;
};

struct Case {
  std::int64_t b, h, h_kv, tq, tk, d;
  bool causal = false;
  MaskKind mask = MaskKind::none;
  double dropout = 0;
  Layout layout = Layout::heads_first;

  std::string name() const {
    return fmt::format("B {} H {} Hkv {} Tq {} Tk {} D {} causal {} mask {} dropout {} layout {}", b, h, h_kv, tq, tk, d, causal,
                       static_cast<int>(mask), dropout, static_cast<int>(layout));
  }
};

template <class T> struct Problem {
  Attention a;
  AttentionGrad g;
  Heads<T> q, k, v, out, dout, dq, dk, dv;
  std::vector<float> lse;
  std::vector<unsigned char> boolean_mask;
  std::vector<float> additive_mask;

  explicit Problem(const Case& c, unsigned seed = 1)
      : q(c.b, c.h, c.tq, c.d, c.layout), k(c.b, c.h_kv, c.tk, c.d, c.layout), v(k), out(q), dout(q), dq(q), dk(k), dv(k) {
    std::mt19937 engine(seed);
    q.randomize(engine), k.randomize(engine), v.randomize(engine), dout.randomize(engine);
    lse.assign(static_cast<std::size_t>(c.b * c.h * c.tq), 0);
    a.dtype = dtype_of<T>;
    a.b = c.b, a.h = c.h, a.h_kv = c.h_kv, a.tq = c.tq, a.tk = c.tk, a.d = c.d;
    a.q = q.strides, a.k = k.strides, a.v = v.strides, a.out = out.strides;
    g = {dout.strides, dq.strides, dk.strides, dv.strides};
    a.scale = 1 / std::sqrt(static_cast<double>(c.d));
    a.causal = c.causal;
    a.dropout = c.dropout;
    a.seed = 0x1234567890abcdefull, a.offset = 0xfffffff0ull;  // the block counter's low half overflows on the way
    make_mask(c, engine);
  }
  Problem(const Problem&) = delete;  // `a` points into the mask

  void forward() { kernels::attention(kernels::cpu_queue(), a, q.data(), k.data(), v.data(), out.data(), lse.data()); }
  void backward() {
    kernels::attention_backward(kernels::cpu_queue(), a, g, q.data(), k.data(), v.data(), out.data(), lse.data(), dout.data(), dq.data(), dk.data(),
                                dv.data());
  }
  bool intact() const { return q.intact() && k.intact() && v.intact() && out.intact() && dout.intact() && dq.intact() && dk.intact() && dv.intact(); }

 private:
  void make_mask(const Case& c, std::mt19937& engine) {
    if (c.mask == MaskKind::none) return;
    const bool by_batch = c.mask != MaskKind::boolean_rows, by_head = c.mask != MaskKind::boolean_keys, by_row = c.mask != MaskKind::boolean_keys;
    const std::int64_t keys = c.mask == MaskKind::boolean_rows ? 1 : c.tk, rows = by_row ? c.tq : 1, heads = by_head ? c.h : 1;
    a.mask_strides = {by_batch ? heads * rows * keys : 0, by_head ? rows * keys : 0, by_row ? keys : 0};
    a.mask_stride_k = keys == 1 ? 0 : 1;
    const auto n = static_cast<std::size_t>((by_batch ? c.b : 1) * heads * rows * keys);
    std::bernoulli_distribution kept(0.6);
    std::normal_distribution<float> normal;
    if (c.mask == MaskKind::additive) {
      a.mask_dtype = f32;
      additive_mask.resize(n);
      for (float& x : additive_mask) x = kept(engine) ? normal(engine) : -std::numeric_limits<float>::infinity();
      a.mask = additive_mask.data();
    } else {
      boolean_mask.resize(n);
      for (unsigned char& x : boolean_mask) x = kept(engine);
      a.mask = boolean_mask.data();
    }
  }
};

/// Exact values and bounds on a kernel's error, in the layout (B, H, T, D).
struct Exact {
  std::vector<double> out, lse, dq, dk, dv;
  std::vector<double> out_bound, lse_bound, dq_bound, dk_bound, dv_bound;
};

/// The bounds follow the arithmetic: sums of n terms in f32 err by at most about n units of f32 of the sum of magnitudes; a score's error is a
/// relative error of its probability; P and dS are rounded to bf16 where products are native; the output, which the backward's row sums are
/// taken of, is rounded to T.
template <class T> Exact exact_of(const Problem<T>& problem) {
  const Attention& a = problem.a;
  Attention plain = a;  // the outputs' layout
  AttentionGrad grads = problem.g;
  const HeadStrides query{a.h * a.tq * a.d, a.tq * a.d, a.d}, key{a.h_kv * a.tk * a.d, a.tk * a.d, a.d};
  plain.out = grads.dq = query;
  grads.dk = grads.dv = key;
  const auto nq = static_cast<std::size_t>(a.b * a.h * a.tq * a.d), nk = static_cast<std::size_t>(a.b * a.h_kv * a.tk * a.d);
  Exact e;
  e.out.resize(nq), e.dq.resize(nq), e.dk.resize(nk), e.dv.resize(nk), e.lse.resize(problem.lse.size());
  kernels::ref::attention(plain, problem.q.data(), problem.k.data(), problem.v.data(), e.out.data(), e.lse.data());
  kernels::ref::attention_backward(plain, grads, problem.q.data(), problem.k.data(), problem.v.data(), problem.dout.data(), e.dq.data(), e.dk.data(),
                                   e.dv.data());

  const double unit = format_info(a.dtype).epsilon / 2, tiny = format_info(a.dtype).min_subnormal;
  const double packed = a.dtype == bf16 && active_isa() == Isa::avx512_bf16 ? 0x1p-8 : kUnit32;  // rounding of P and dS
  const auto d = static_cast<double>(a.d), tk = static_cast<double>(a.tk);
  const std::int64_t group = a.h / a.h_kv;
  const double terms = static_cast<double>(a.tq * group);
  e.out_bound.assign(nq, 0), e.dq_bound.assign(nq, 0), e.dk_bound.assign(nk, 0), e.dv_bound.assign(nk, 0), e.lse_bound.assign(e.lse.size(), 0);
  std::vector<double> p(static_cast<std::size_t>(a.tk));
  for (std::int64_t b = 0; b < a.b; ++b)
    for (std::int64_t h = 0; h < a.h; ++h)
      for (std::int64_t i = 0; i < a.tq; ++i) {
        const kernels::ref::detail::AttentionRow r{b, h, i};
        const double lse = kernels::ref::detail::attention_probabilities(a, r, problem.q.data(), problem.k.data(), p.data());
        const std::int64_t hk = h / group, row = ((b * a.h + h) * a.tq + i) * a.d, keys = (b * a.h_kv + hk) * a.tk * a.d;
        double score = 0, dp_size = 0, dot_size = 0;  // largest magnitudes of the sums
        for (std::int64_t j = 0; j < a.tk; ++j) {
          double s = 0, dp = 0;
          for (std::int64_t c = 0; c < a.d; ++c) {
            s += std::fabs(to_double(problem.q.at(b, h, i, c)) * to_double(problem.k.at(b, hk, j, c)));
            dp += std::fabs(to_double(problem.dout.at(b, h, i, c)) * to_double(problem.v.at(b, hk, j, c)));
          }
          const double bias = kernels::ref::detail::attention_bias(a, r, j);
          score = std::max(score, s * a.scale + (std::isinf(bias) ? 0 : std::fabs(bias)));
          dp_size = std::max(dp_size, dp * kernels::ref::detail::attention_keep(a, r, j));
        }
        const double ds = (d + 8) * kUnit32 * score;  // error of a score
        const double lse_error = std::isinf(lse) ? 0 : ds + (tk + 8) * kUnit32 + 4 * kUnit32 * std::fabs(lse);
        e.lse_bound[static_cast<std::size_t>(row / a.d)] = lse_error;
        const double p_error = 2 * ds + (tk + 8) * kUnit32;         // relative, in the forward
        const double p_error_again = ds + lse_error + 8 * kUnit32;  // and recomputed
        for (std::int64_t c = 0; c < a.d; ++c) {
          double size = 0;
          for (std::int64_t j = 0; j < a.tk; ++j)
            size += p[static_cast<std::size_t>(j)] * kernels::ref::detail::attention_keep(a, r, j) * std::fabs(to_double(problem.v.at(b, hk, j, c)));
          double& bound = e.out_bound[static_cast<std::size_t>(row + c)];
          bound = (p_error + packed + (tk + 4) * kUnit32) * size;
          bound += unit * (std::fabs(e.out[static_cast<std::size_t>(row + c)]) + bound) + tiny;
          dot_size +=
              std::fabs(to_double(problem.dout.at(b, h, i, c))) * (bound + (d + 4) * kUnit32 * std::fabs(e.out[static_cast<std::size_t>(row + c)]));
        }
        const double difference_error = dot_size + (d + 4) * kUnit32 * dp_size;  // of dP - sum(dout * out)
        double dot = 0;
        for (std::int64_t c = 0; c < a.d; ++c) dot += to_double(problem.dout.at(b, h, i, c)) * e.out[static_cast<std::size_t>(row + c)];
        for (std::int64_t j = 0; j < a.tk; ++j) {
          const double pj = p[static_cast<std::size_t>(j)], keep = kernels::ref::detail::attention_keep(a, r, j);
          double dp = 0;
          for (std::int64_t c = 0; c < a.d; ++c) dp += keep * to_double(problem.dout.at(b, h, i, c)) * to_double(problem.v.at(b, hk, j, c));
          const double gradient = a.scale * std::fabs(pj * (dp - dot));
          const double error = gradient * (p_error_again + packed + 4 * kUnit32) + a.scale * pj * difference_error;
          for (std::int64_t c = 0; c < a.d; ++c) {
            const auto at = static_cast<std::size_t>(keys + j * a.d + c);
            e.dq_bound[static_cast<std::size_t>(row + c)] +=
                (error + (tk + 4) * kUnit32 * gradient) * std::fabs(to_double(problem.k.at(b, hk, j, c)));
            e.dk_bound[at] += (error + (terms + 4) * kUnit32 * gradient) * std::fabs(to_double(problem.q.at(b, h, i, c)));
            e.dv_bound[at] += (p_error_again + packed + (terms + 4) * kUnit32) * pj * keep * std::fabs(to_double(problem.dout.at(b, h, i, c)));
          }
        }
      }
  const auto add_rounding = [&](std::vector<double>& bound, const std::vector<double>& x) {
    for (std::size_t i = 0; i < x.size(); ++i) bound[i] += unit * (std::fabs(x[i]) + bound[i]) + tiny;
  };
  add_rounding(e.dq_bound, e.dq), add_rounding(e.dk_bound, e.dk), add_rounding(e.dv_bound, e.dv);
  return e;
}

/// Largest error as a share of its bound; infinite where a value is not finite. Infinities that agree (lse of a hidden row) count 0.
class Worst {
 public:
  void see(double got, double want, double bound) {
    if (got == want) return;
    const double share = std::fabs(got - want) / bound;
    worst_ = share <= 1e300 ? std::max(worst_, share) : std::numeric_limits<double>::infinity();
  }
  double share() const { return worst_; }

 private:
  double worst_ = 0;
};

template <class T> double worst_share(Heads<T>& got, const std::vector<double>& want, const std::vector<double>& bound) {
  Worst worst;
  std::size_t n = 0;
  got.each([&](auto, auto, auto, auto, T& x) {
    worst.see(to_double(x), want[n], bound[n]);
    ++n;
  });
  return worst.share();
}

/// Runs a case forward and backward and checks every element against its bound, and the memory around the operands.
template <class T> void check_case(const Case& c, double* largest = nullptr) {
  CAPTURE(name(dtype_of<T>));
  const std::string what = c.name();
  CAPTURE(what);
  Problem<T> problem(c);
  problem.forward();
  problem.backward();
  const Exact exact = exact_of(problem);
  Worst lse;
  for (std::size_t i = 0; i < exact.lse.size(); ++i) lse.see(static_cast<double>(problem.lse[i]), exact.lse[i], exact.lse_bound[i]);
  const double out = worst_share(problem.out, exact.out, exact.out_bound), dq = worst_share(problem.dq, exact.dq, exact.dq_bound);
  const double dk = worst_share(problem.dk, exact.dk, exact.dk_bound), dv = worst_share(problem.dv, exact.dv, exact.dv_bound);
  CHECK(out <= 1);
  CHECK(lse.share() <= 1);
  CHECK(dq <= 1);
  CHECK(dk <= 1);
  CHECK(dv <= 1);
  CHECK(problem.intact());
  if (largest) *largest = std::max({*largest, out, lse.share(), dq, dk, dv});
}

}  // namespace mezzo::test
