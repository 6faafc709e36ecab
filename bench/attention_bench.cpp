// attention_bench.cpp - attention forward and backward, by dtype and shape; gflops counts the visible scores only.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include <mezzo/random.h>

#include "dtype/dispatch.h"
#include "kernels/kernels.h"

namespace {

using namespace mezzo;
using namespace mezzo::kernels;

struct Shape {
  std::int64_t b, h, h_kv, tq, tk, d;
};
constexpr Shape kShapes[] = {
    {12, 6, 6, 256, 256, 64},    // the small GPT
    {4, 12, 12, 256, 256, 64},   // GPT-2 124M
    {2, 9, 3, 256, 256, 64},     // SmolLM2-135M
    {1, 8, 8, 2048, 2048, 128},  // a long sequence
    {1, 9, 3, 1, 1024, 64},      // one token of generation
};

/// q, k, v and their gradients packed as a projection leaves them: (B, T, 3, H, D), or apart where the shapes differ.
template <class T> struct Tensors {
  Attention a;
  AttentionGrad g;
  std::vector<T> q, k, v, out, dout, dq, dk, dv;
  std::vector<float> lse;

  Tensors(const Shape& s, bool causal, double dropout) {
    Generator random(1);
    const auto fill = [&](std::vector<T>& x, std::int64_t h, std::int64_t t) {
      x.resize(static_cast<std::size_t>(s.b * h * t * s.d));
      for (T& value : x) value = T(static_cast<float>(random.normal()));
    };
    fill(q, s.h, s.tq), fill(k, s.h_kv, s.tk), fill(v, s.h_kv, s.tk), fill(dout, s.h, s.tq);
    out = dq = q, dk = k, dv = v;
    lse.resize(static_cast<std::size_t>(s.b * s.h * s.tq));
    const HeadStrides query{s.tq * s.h * s.d, s.d, s.h * s.d}, key{s.tk * s.h_kv * s.d, s.d, s.h_kv * s.d};
    a.dtype = dtype_of<T>;
    a.b = s.b, a.h = s.h, a.h_kv = s.h_kv, a.tq = s.tq, a.tk = s.tk, a.d = s.d;
    a.q = a.out = query, a.k = a.v = key;
    a.scale = 0.125;
    a.causal = causal;
    a.dropout = dropout;
    g = {query, query, key, key};
  }
  double scores() const {
    double n = 0;
    for (std::int64_t i = 0; i < a.tq; ++i) n += static_cast<double>(a.causal ? i + 1 + a.tk - a.tq : a.tk);
    return n * static_cast<double>(a.b * a.h);
  }
};

template <class T> void forward(benchmark::State& state) {
  Tensors<T> x(kShapes[state.range(0)], state.range(1) != 0, static_cast<double>(state.range(2)) / 10);
  for (auto _ : state) attention(cpu_queue(), x.a, x.q.data(), x.k.data(), x.v.data(), x.out.data(), x.lse.data());
  state.counters["gflops"] = benchmark::Counter(4e-9 * x.scores() * static_cast<double>(x.a.d), benchmark::Counter::kIsIterationInvariantRate);
}

template <class T> void backward(benchmark::State& state) {
  Tensors<T> x(kShapes[state.range(0)], state.range(1) != 0, static_cast<double>(state.range(2)) / 10);
  attention(cpu_queue(), x.a, x.q.data(), x.k.data(), x.v.data(), x.out.data(), x.lse.data());
  for (auto _ : state) {
    attention_backward(cpu_queue(), x.a, x.g, x.q.data(), x.k.data(), x.v.data(), x.out.data(), x.lse.data(), x.dout.data(), x.dq.data(), x.dk.data(),
                       x.dv.data());
  }
  state.counters["gflops"] = benchmark::Counter(10e-9 * x.scores() * static_cast<double>(x.a.d), benchmark::Counter::kIsIterationInvariantRate);
}

void arguments(benchmark::internal::Benchmark* b) {
  b->ArgNames({"shape", "causal", "dropout"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (int shape = 0; shape < 5; ++shape) b->Args({shape, 1, 0});
  b->Args({0, 0, 0})->Args({0, 1, 1});
}
BENCHMARK(forward<bf16_t>)->Apply(arguments);
BENCHMARK(forward<f16_t>)->Apply(arguments);
BENCHMARK(forward<float>)->Apply(arguments);
BENCHMARK(backward<bf16_t>)->Apply(arguments);
BENCHMARK(backward<f16_t>)->Apply(arguments);
BENCHMARK(backward<float>)->Apply(arguments);

}  // namespace
