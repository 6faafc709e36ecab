// gemm_bench.cpp - matrix products of a Linear layer, forward and both gradients, by dtype and shape; and small ones, where overhead counts.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <mezzo/dtype.h>
#include <mezzo/random.h>
#include <mezzo/runtime.h>

#include "kernels/kernels.h"

namespace {

using namespace mezzo;
using kernels::Gemm;

enum class Pass { forward, input_grad, weight_grad };

/// A Linear of `tokens` rows, `in` to `out`: y = x w^T, dx = dy w, dw += dy^T x.
struct Layer {
  std::int64_t tokens, in, out;
};
constexpr Layer kGpt6x384[] = {{3072, 384, 1152}, {3072, 384, 384}, {3072, 384, 1536}, {3072, 1536, 384}, {3072, 384, 65}};
constexpr Layer kGpt2[] = {{1024, 768, 2304}, {1024, 768, 768}, {1024, 768, 3072}, {1024, 3072, 768}, {256, 768, 50257},
                           {256, 768, 2304},  {256, 768, 768},  {256, 768, 3072},  {256, 3072, 768}};
constexpr Layer kSquare[] = {{2048, 2048, 2048}, {1024, 1024, 1024}, {512, 512, 512}, {256, 256, 256}, {128, 128, 128}, {64, 64, 64},
                             {32, 32, 32},       {16, 16, 16},       {8, 8, 8},       {1, 1, 1},       {1, 768, 768},   {1, 768, 50257}};

Gemm product(const Layer& l, Pass pass, Dtype t) {
  Gemm g;
  g.a = g.b = g.c = t;
  switch (pass) {
    case Pass::forward: g.m = l.tokens, g.n = l.out, g.k = l.in, g.trans_b = true, g.lda = l.in, g.ldb = l.in; break;
    case Pass::input_grad: g.m = l.tokens, g.n = l.in, g.k = l.out, g.lda = l.out, g.ldb = l.in; break;
    case Pass::weight_grad: g.m = l.out, g.n = l.in, g.k = l.tokens, g.trans_a = true, g.lda = l.out, g.ldb = l.in, g.c = f32, g.beta = 1; break;
  }
  g.ldc = g.n;
  return g;
}

void run(benchmark::State& state, const Gemm& g) {
  const auto bytes = [](std::int64_t n, Dtype t) { return std::vector<char>(static_cast<std::size_t>(n) * size_of(t)); };
  auto a = bytes(g.m * g.k, g.a), b = bytes(g.k * g.n, g.b), c = bytes(g.m * g.n, g.c);
  kernels::Queue& queue = kernels::cpu_queue();
  Generator random(1);
  const auto fill = [&](std::vector<char>& x, Dtype t) {
    kernels::normal(queue, t, x.data(), static_cast<std::int64_t>(x.size() / size_of(t)), 0, 1, 1, random.reserve(x.size()));
  };
  fill(a, g.a), fill(b, g.b);
  for (auto _ : state) kernels::gemm(queue, g, a.data(), b.data(), c.data());
  state.counters["GFLOP/s"] = benchmark::Counter(
      2e-9 * static_cast<double>(g.m * g.n) * static_cast<double>(g.k) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

template <std::size_t N> void add(const char* set, const Layer (&layers)[N]) {
  constexpr const char* kPasses[] = {"forward", "input_grad", "weight_grad"};
  for (const Dtype t : {f32, bf16, f16}) {
    for (const Layer& l : layers) {
      for (const Pass pass : {Pass::forward, Pass::input_grad, Pass::weight_grad}) {
        const auto label = fmt::format("{}/{}/{}x{}->{}/{}", set, name(t), l.tokens, l.in, l.out, kPasses[static_cast<int>(pass)]);
        benchmark::RegisterBenchmark(label.c_str(), [g = product(l, pass, t)](benchmark::State& s) { run(s, g); })->UseRealTime();
      }
    }
  }
}

const bool registered = [] {
  add("gpt6x384", kGpt6x384);
  add("gpt2", kGpt2);
  add("square", kSquare);
  return true;
}();

}  // namespace
