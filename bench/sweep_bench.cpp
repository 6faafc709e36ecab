// sweep_bench.cpp - cliffs: random shapes, each against the same shape with every size rounded up to 64. The worst are listed.
//
//     bench_sweep [--shapes 200] [--seed 1] [--worst 10] [--seconds 0.06] [--only bf16] [--attention true]
//
// A shape's figure is its time a flop over that of the rounded shape; the two take turns, and the fastest of each counts. Products: y = x w^T, dx =
// dy w, dw += dy^T x of a Linear with T tokens, sizes drawn log-uniformly (some multiples of 8, some vocabularies), T in out of a million and more.
// Attention: head sizes 32 to 256 in eights, causal, forward and backward. A figure above 1.5 is a cliff.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <mezzo/mezzo.h>

#include "kernels/kernels.h"
#include "stopwatch.h"

namespace {

using namespace mezzo;
using namespace mezzo::kernels;

struct Arguments {
  std::int64_t shapes = 200, worst = 10;
  std::uint64_t seed = 1;
  double seconds = 0.06;  // of a pair
  std::string only;       // part of a label
  bool attention = false;
};

constexpr double kLeast = 1e6, kMost = 2.5e9;  // m n k

std::int64_t rounded(std::int64_t n) { return (n + 63) / 64 * 64; }

/// The fastest of alternating runs of each.
template <class F, class G> std::pair<double, double> fastest(double seconds, F&& one, G&& other) {
  const auto timed = [](auto&& f) {
    const double begin = bench::seconds();
    f();
    return bench::seconds() - begin;
  };
  one(), other();
  std::pair best{std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  const double begin = bench::seconds();
  for (int i = 0; i < 5 || bench::seconds() - begin < seconds; ++i) best = {std::min(best.first, timed(one)), std::min(best.second, timed(other))};
  return best;
}

// ---- products ------------------------------------------------------------------------------------

constexpr const char* kPasses[] = {"forward", "input_grad", "weight_grad"};

Gemm product(int pass, std::int64_t tokens, std::int64_t in, std::int64_t out, Dtype t) {
  Gemm g;
  g.a = g.b = g.c = t;
  if (pass == 0) g.m = tokens, g.n = out, g.k = in, g.trans_b = true, g.lda = in, g.ldb = in;
  if (pass == 1) g.m = tokens, g.n = in, g.k = out, g.lda = out, g.ldb = in;
  if (pass == 2) g.m = out, g.n = in, g.k = tokens, g.trans_a = true, g.lda = out, g.ldb = in, g.c = Dtype::f32, g.beta = 1;
  g.ldc = g.n;
  return g;
}

class Product {
 public:
  Product(const Gemm& g)
      : g_(g),
        a_(cpu_queue().scratch(bytes(g.m * g.k, g.a))),
        b_(cpu_queue().scratch(bytes(g.k * g.n, g.b))),
        c_(cpu_queue().scratch(bytes(g.m * g.n, g.c))) {
    normal(cpu_queue(), g.a, a_.as<void>(), g.m * g.k, 0, 1, 1, 0);
    normal(cpu_queue(), g.b, b_.as<void>(), g.k * g.n, 0, 1, 2, 0);
    normal(cpu_queue(), g.c, c_.as<void>(), g.m * g.n, 0, 1, 3, 0);
  }
  void operator()() { gemm(cpu_queue(), g_, a_.as<void>(), b_.as<void>(), c_.as<void>()); }
  double flops() const { return 2.0 * static_cast<double>(g_.m) * static_cast<double>(g_.n) * static_cast<double>(g_.k); }
  /// Read, and of C written; a C that is added to is read as well.
  double bytes() const { return static_cast<double>(a_.bytes() + b_.bytes() + (g_.beta == 0 ? 1 : 2) * c_.bytes()); }

 private:
  static std::size_t bytes(std::int64_t n, Dtype t) { return static_cast<std::size_t>(n) * size_of(t); }
  Gemm g_;
  Block a_, b_, c_;
};

struct Found {
  std::string label;
  double ratio, flop_ratio, gflops, rounded_gflops;
};

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed) {}
  std::int64_t log_uniform(double least, double most) {
    return std::llround(least * std::pow(most / least, static_cast<double>(random_.below(1 << 20)) / (1 << 20)));
  }
  std::int64_t below(std::uint64_t n) { return static_cast<std::int64_t>(random_.below(n)); }

 private:
  Generator random_;
};

/// Bytes a second that a pass over memory beyond the caches reads.
double read_rate() {
  constexpr std::int64_t kNumbers = 32 << 20;
  const Block x = cpu_queue().scratch(kNumbers * sizeof(float));
  normal(cpu_queue(), f32, x.as<void>(), kNumbers, 0, 1, 1, 0);
  GradStats stats;
  const auto pass = [&] { grad_stats(cpu_queue(), f32, x.as<void>(), kNumbers, 1, &stats); };
  return static_cast<double>(x.bytes()) / fastest(0.2, pass, [] {}).first;
}

std::vector<Found> sweep_products(const Arguments& a) {
  constexpr std::int64_t kVocabularies[] = {65, 257, 1000, 32000, 50257};
  const double bytes_a_second = read_rate();
  std::vector<Found> out;
  Draw draw(a.seed);
  for (std::int64_t i = 0; i < a.shapes;) {
    std::int64_t tokens = draw.log_uniform(1, 4096), in = draw.log_uniform(16, 4096), width = draw.log_uniform(16, 4096);
    if (i % 3 == 0) in = (in + 7) / 8 * 8, width = (width + 7) / 8 * 8;
    if (i % 8 == 1) width = kVocabularies[draw.below(5)];
    const double size = static_cast<double>(tokens) * static_cast<double>(in) * static_cast<double>(width);
    if (size < kLeast || size > kMost) continue;
    ++i;
    for (const Dtype t : {f32, bf16})
      for (int pass = 0; pass < 3; ++pass) {
        const auto label = fmt::format("{} {} T={} in={} out={}", name(t), kPasses[pass], tokens, in, width);
        if (label.find(a.only) == std::string::npos) continue;
        Product given(product(pass, tokens, in, width, t)), even(product(pass, rounded(tokens), rounded(in), rounded(width), t));
        const auto [s, r] = fastest(a.seconds, given, even);
        const double share = r * given.flops() / even.flops(), moved = given.bytes() / bytes_a_second;
        out.push_back({label, s / std::max(share, moved), s / share, given.flops() / s / 1e9, even.flops() / r / 1e9});
      }
  }
  return out;
}

// ---- attention -----------------------------------------------------------------------------------

class Heads {
 public:
  Heads(Dtype t, std::int64_t batch, std::int64_t heads, std::int64_t seq, std::int64_t size, bool backward) : backward_(backward) {
    a_.dtype = t;
    a_.b = batch, a_.h = a_.h_kv = heads, a_.tq = a_.tk = seq, a_.d = size;
    const HeadStrides strides{seq * heads * size, size, heads * size};
    a_.q = a_.k = a_.v = a_.out = strides;
    a_.scale = 1 / std::sqrt(static_cast<double>(size));
    a_.causal = true;
    g_ = {strides, strides, strides, strides};
    const std::int64_t n = batch * heads * seq * size;
    for (std::size_t i = 0; i < 8; ++i) {
      x_.push_back(cpu_queue().scratch(static_cast<std::size_t>(n) * size_of(t)));
      normal(cpu_queue(), t, x_[i].as<void>(), n, 0, 1, i + 1, 0);
    }
    lse_ = cpu_queue().scratch(static_cast<std::size_t>(batch * heads * seq) * sizeof(float));
    forward();
  }
  void operator()() {
    if (!backward_) return forward();
    attention_backward(cpu_queue(), a_, g_, x(0), x(1), x(2), x(3), lse_.as<float>(), x(4), x(5), x(6), x(7));
  }
  double flops() const { return static_cast<double>(a_.b * a_.h) * static_cast<double>(a_.tq * (a_.tq + 1)) * static_cast<double>(a_.d); }

 private:
  void* x(std::size_t i) { return x_[i].as<void>(); }
  void forward() { attention(cpu_queue(), a_, x(0), x(1), x(2), x(3), lse_.as<float>()); }
  Attention a_;
  AttentionGrad g_;
  std::vector<Block> x_;  // q, k, v, out, dout, dq, dk, dv
  Block lse_;
  bool backward_;
};

std::vector<Found> sweep_attention(const Arguments& a) {
  std::vector<Found> out;
  Draw draw(a.seed);
  for (std::int64_t size = 32; size <= 256; size += 8)
    for (const Dtype t : {f32, bf16})
      for (const bool backward : {false, true}) {
        const std::int64_t seq = draw.log_uniform(64, 512), heads = 1 + draw.below(4);
        const auto label = fmt::format("{} {} heads={} size={} T={}", name(t), backward ? "backward" : "forward", heads, size, seq);
        if (label.find(a.only) == std::string::npos) continue;
        Heads given(t, 2, heads, seq, size, backward), even(t, 2, heads, rounded(seq), rounded(size), backward);
        const auto [s, r] = fastest(a.seconds, given, even);
        const double share = r * given.flops() / even.flops();
        out.push_back({label, s / share, s / share, given.flops() / s / 1e9, even.flops() / r / 1e9});
      }
  return out;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--shapes") a.shapes = std::stoll(value);
    else if (name == "--worst") a.worst = std::stoll(value);
    else if (name == "--seed") a.seed = std::stoull(value);
    else if (name == "--seconds") a.seconds = std::stod(value);
    else if (name == "--only") a.only = value;
    else if (name == "--attention") a.attention = value == "true";
    else throw Error("unknown option " + std::string(name));
  }
  return a;
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  auto found = a.attention ? sweep_attention(a) : sweep_products(a);
  std::sort(found.begin(), found.end(), [](const Found& x, const Found& y) { return x.ratio > y.ratio; });
  const auto cliffs = std::count_if(found.begin(), found.end(), [](const Found& f) { return f.ratio > 1.5; });
  std::printf("%zu measured, %lld above 1.5\n%7s %7s %9s %9s\n", found.size(), static_cast<long long>(cliffs), "ratio", "a flop", "GFLOP/s",
              "rounded");
  for (std::size_t i = 0; i < std::min(found.size(), static_cast<std::size_t>(a.worst)); ++i)
    std::printf("%7.2f %7.2f %9.1f %9.1f  %s\n", found[i].ratio, found[i].flop_ratio, found[i].gflops, found[i].rounded_gflops,
                found[i].label.c_str());
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_sweep: %s\n", e.what());
  return 1;
}
