// sweep_bench.cpp - cliffs: random shapes, each against the same shape with every size rounded up to 64. The worst are listed.
//
//     bench_sweep [--shapes 200] [--seed 1] [--worst 10] [--seconds 0.06] [--threads 2] [--only bf16] [--attention true]
//
// `a flop` is a shape's time a flop over that of the rounded shape; the two take turns, and the fastest of each counts. `roofline` is the share of
// the speed that the machine allows: the least time for its flops at the peak measured here (a large product), or for its bytes (operands read once,
// C written, read as well where it is added to) at the rate at which a plain loop reads as many bytes as both shapes have, whichever is longer. A few
// rows of a wide product are bound by reading the weights, and no kernel can make them as fast a flop as many rows. So a cliff is a shape that is
// more than 1.5 times slower a flop and below 0.7 of the roofline. What looks like one is measured again, for longer and when the others are done,
// and the fastest counts: others use this machine too, which has two speeds for minutes at a time.
//
// Products: y = x w^T, dx = dy w, dw += dy^T x of a Linear with T tokens, sizes drawn log-uniformly (some multiples of 8, some vocabularies), T in
// out of a million and more. Attention: head sizes 32 to 256 in eights, any length, one to sixteen heads (some sharing keys), causal or not, heads of
// a batch times T T size of a million and more.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <mezzo/mezzo.h>

#include "core/parallel.h"
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

/// A shape and its rounded neighbour: the fastest of all their runs so far.
struct Found {
  std::string label;
  double given = std::numeric_limits<double>::infinity(), even = given;  // seconds
  double ratio = 0, roofline = 0, gflops = 0, rounded_gflops = 0;
  bool cliff() const { return ratio > 1.5 && roofline < 0.7; }
  /// How far from being none: the order of the list.
  double badness() const { return std::min(ratio / 1.5, 0.7 / roofline); }
  bool suspicious() const { return badness() >= 0.95; }
};

/// Measures a pair of works, each with flops() and bytes(); at_least(work): the seconds that the machine needs for it.
template <class Work, class AtLeast> void compare(Found& found, double seconds, Work& given, Work& even, const AtLeast& at_least) {
  for (const double factor : {1, 4, 16}) {
    const auto [s, r] = fastest(seconds * factor, given, even);
    found.given = std::min(found.given, s);
    found.even = std::min(found.even, r);
    found.ratio = found.given / given.flops() / (found.even / even.flops());
    found.roofline = at_least(given.flops(), given.bytes(), given.bytes() + even.bytes()) / found.given;
    if (!found.suspicious()) break;
  }
  found.gflops = given.flops() / found.given / 1e9;
  found.rounded_gflops = even.flops() / found.even / 1e9;
}

/// Pairs to be measured.
class Pairs {
 public:
  template <class Measure> void add(std::string label, Measure measure) { pairs_.push_back({Found{std::move(label)}, std::move(measure)}); }
  /// All of them; what looks like a cliff twice more, when the others are done: the machine is slower for minutes at a time.
  std::vector<Found> measured() {
    for (int round = 0; round < 3; ++round)
      for (auto& p : pairs_)
        if (round == 0 || p.found.suspicious()) p.measure(p.found);
    std::vector<Found> out;
    for (auto& p : pairs_) out.push_back(std::move(p.found));
    return out;
  }

 private:
  struct Pair {
    Found found;
    std::function<void(Found&)> measure;
  };
  std::vector<Pair> pairs_;
};

// ---- what the machine allows ------------------------------------------------------------------------

/// Bytes a second that a plain loop reads out of memory of about this size, whatever cache holds it: measured once for each power of two.
double read_rate(double bytes) {
  static std::map<int, double> known;
  const int log2 = std::clamp(static_cast<int>(std::lround(std::log2(bytes))), 16, 28);
  if (const auto found = known.find(log2); found != known.end()) return found->second;
  const std::int64_t words = (std::int64_t{1} << log2) / 8;
  const Block memory = cpu_queue().scratch(static_cast<std::size_t>(words) * 8);
  normal(cpu_queue(), f32, memory.as<void>(), words * 2, 0, 1, 1, 0);
  std::atomic<std::uint64_t> all{0};  // so that the loop is not left out
  const auto pass = [&] {
    parallel_for(words, 4096, [&](std::int64_t begin, std::int64_t end) {
      const std::uint64_t* x = memory.as<std::uint64_t>();
      std::uint64_t sum[16] = {};
      for (std::int64_t i = begin; i + 16 <= end; i += 16)
        for (std::int64_t j = 0; j < 16; ++j) sum[j] ^= x[i + j];
      for (const std::uint64_t each : sum) all.fetch_xor(each, std::memory_order_relaxed);
    });
  };
  return known[log2] = static_cast<double>(words) * 8 / fastest(0.1, pass, [] {}).first;
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

/// Flops a second of a product in cache.
double peak(Dtype t) {
  Product large(product(0, 1024, 768, 768, t));
  return large.flops() / fastest(0.5, large, [] {}).first;
}

/// The seconds that the machine needs at least.
struct AtLeast {
  double peak;
  double operator()(double flops, double bytes, double working_set) const { return std::max(flops / peak, bytes / read_rate(working_set)); }
};

std::vector<Found> sweep_products(const Arguments& a) {
  constexpr std::int64_t kVocabularies[] = {65, 257, 1000, 32000, 50257};
  const AtLeast at_least[] = {AtLeast{peak(f32)}, AtLeast{peak(bf16)}};
  Pairs pairs;
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
        pairs.add(label, [=](Found& found) {
          Product given(product(pass, tokens, in, width, t)), even(product(pass, rounded(tokens), rounded(in), rounded(width), t));
          compare(found, a.seconds, given, even, at_least[t == bf16]);
        });
      }
  }
  return pairs.measured();
}

// ---- attention -----------------------------------------------------------------------------------

struct HeadsShape {
  std::int64_t batch, heads, key_heads, seq, size;
  bool causal;
};

class Heads {
 public:
  Heads(Dtype t, const HeadsShape& s, bool backward) : backward_(backward) {
    a_.dtype = t;
    a_.b = s.batch, a_.h = s.heads, a_.h_kv = s.key_heads, a_.tq = a_.tk = s.seq, a_.d = s.size;
    const auto strides = [&](std::int64_t heads) { return HeadStrides{s.seq * heads * s.size, s.size, heads * s.size}; };
    a_.q = a_.out = g_.dout = g_.dq = strides(s.heads);
    a_.k = a_.v = g_.dk = g_.dv = strides(s.key_heads);
    a_.scale = 1 / std::sqrt(static_cast<double>(s.size));
    a_.causal = s.causal;
    for (std::size_t i = 0; i < 8; ++i) {
      const std::int64_t n = s.batch * (i < 4 ? s.heads : s.key_heads) * s.seq * s.size;
      x_.push_back(cpu_queue().scratch(static_cast<std::size_t>(n) * size_of(t)));
      normal(cpu_queue(), t, x_[i].as<void>(), n, 0, 1, i + 1, 0);
    }
    lse_ = cpu_queue().scratch(static_cast<std::size_t>(s.batch * s.heads * s.seq) * sizeof(float));
    forward();
  }
  void operator()() {
    if (!backward_) return forward();
    attention_backward(cpu_queue(), a_, g_, x(kQ), x(kK), x(kV), x(kOut), lse_.as<float>(), x(kDout), x(kDq), x(kDk), x(kDv));
  }
  /// Of the visible scores.
  double flops() const {
    const double scores = static_cast<double>(a_.tq) * static_cast<double>(a_.causal ? a_.tq + 1 : 2 * a_.tq) / 2;
    return (backward_ ? 10 : 4) * scores * static_cast<double>(a_.b * a_.h * a_.d);
  }
  double bytes() const {
    std::size_t sum = 0;
    for (const int i : {kQ, kOut, kK, kV}) sum += (backward_ ? 2 : 1) * x_[i].bytes();
    return static_cast<double>(sum);
  }

 private:
  enum { kQ, kOut, kDout, kDq, kK, kV, kDk, kDv };
  void* x(int i) { return x_[i].as<void>(); }
  void forward() { attention(cpu_queue(), a_, x(kQ), x(kK), x(kV), x(kOut), lse_.as<float>()); }
  Attention a_;
  AttentionGrad g_;
  std::vector<Block> x_;
  Block lse_;
  bool backward_;
};

std::vector<Found> sweep_attention(const Arguments& a) {
  const AtLeast at_least[] = {AtLeast{peak(f32)}, AtLeast{peak(bf16)}};
  Pairs pairs;
  Draw draw(a.seed);
  for (std::int64_t i = 0; i < a.shapes; ++i) {
    const std::int64_t share = draw.below(4) == 0 ? 2 : 1, key_heads = draw.log_uniform(1, 8);
    const HeadsShape s{1 + draw.below(4), key_heads * share, key_heads, draw.log_uniform(17, 1024), 32 + 8 * (i % 29), i % 2 == 0};
    const double size = static_cast<double>(s.batch * s.heads * s.seq * s.seq * s.size);
    if (size < kLeast || size > kMost) {
      --i;
      continue;
    }
    HeadsShape round = s;
    round.seq = rounded(s.seq), round.size = rounded(s.size);
    for (const Dtype t : {f32, bf16})
      for (const bool backward : {false, true}) {
        const auto label = fmt::format("{} {} B={} heads={}/{} size={} T={}{}", name(t), backward ? "backward" : "forward", s.batch, s.heads,
                                       s.key_heads, s.size, s.seq, s.causal ? " causal" : "");
        if (label.find(a.only) == std::string::npos) continue;
        pairs.add(label, [=](Found& found) {
          Heads given(t, s, backward), even(t, round, backward);
          compare(found, a.seconds, given, even, at_least[t == bf16]);
        });
      }
  }
  return pairs.measured();
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
    else if (name == "--threads") set_num_threads(std::stoi(value));
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
  std::sort(found.begin(), found.end(), [](const Found& x, const Found& y) { return x.badness() > y.badness(); });
  const auto cliffs = std::count_if(found.begin(), found.end(), [](const Found& f) { return f.cliff(); });
  std::printf("%zu measured, %lld cliffs\n%7s %9s %9s %9s\n", found.size(), static_cast<long long>(cliffs), "a flop", "roofline", "GFLOP/s",
              "rounded");
  for (std::size_t i = 0; i < std::min(found.size(), static_cast<std::size_t>(a.worst)); ++i)
    std::printf("%7.2f %9.2f %9.1f %9.1f  %s\n", found[i].ratio, found[i].roofline, found[i].gflops, found[i].rounded_gflops, found[i].label.c_str());
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_sweep: %s\n", e.what());
  return 1;
}
