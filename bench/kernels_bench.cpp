// kernels_bench.cpp - row, element-wise and optimizer kernels at training shapes: GB/s, and its share of the triad bandwidth measured beforehand.
//
// Bytes are those that must move: every input read once, every output written once. Arrays of a few MB stay in the caches, so shares above 1 are
// normal there; what streams from memory (the optimizer, grad_stats) shows what memory gives.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <mezzo/random.h>
#include <mezzo/runtime.h>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/kernels.h"

namespace {

using namespace mezzo;
using namespace mezzo::kernels;

using Call = std::function<void()>;

double seconds_of(const Call& call) {
  const auto begin = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// GB/s of a = b + s c on arrays far larger than the caches, best of ten (McCalpin's STREAM).
double measure_triad() {
  constexpr std::int64_t kN = 1 << 25;
  const Block block(3 * kN * sizeof(float), Memory::workspace);
  float *a = block.as<float>(), *b = a + kN, *c = b + kN;
  std::fill(a, a + 3 * kN, 1.0f);
  const Call triad = [=] {
    parallel_for(
        kN, 1 << 16,
        [=](std::int64_t from, std::int64_t to) {
          for (std::int64_t i = from; i < to; ++i) a[i] = b[i] + 3.0f * c[i];
        },
        64);
  };
  double best = 1e9;
  for (int k = 0; k < 10; ++k) best = std::min(best, seconds_of(triad));
  return 3.0 * kN * sizeof(float) / best * 1e-9;
}
double triad_bandwidth() {
  static const double bandwidth = measure_triad();
  return bandwidth;
}

// n elements of any floating dtype: normal numbers times scale, repeated.
class Array {
 public:
  Array(Dtype dtype, std::int64_t n, double scale = 1) : block_(static_cast<std::size_t>(n) * size_of(dtype), Memory::workspace) {
    const std::int64_t drawn = std::min<std::int64_t>(n, 65536);
    dispatch_float(dtype, "bench", [&]<class T>() {
      Generator random(static_cast<std::uint64_t>(n));
      T* p = block_.as<T>();
      for (std::int64_t i = 0; i < drawn; ++i) p[i] = static_cast<T>(static_cast<float>(scale * random.normal()));
      for (std::int64_t i = drawn; i < n; i += drawn) std::copy_n(p, std::min(drawn, n - i), p + i);
    });
  }
  operator void*() const { return block_.as<void>(); }
  template <class T> T* as() const { return block_.as<T>(); }

 private:
  Block block_;
};
using Shared = std::shared_ptr<Array>;
Shared array(Dtype dtype, std::int64_t n, double scale = 1) { return std::make_shared<Array>(dtype, n, scale); }

// Registers what `make` returns once its arrays are there, as a benchmark that moves `bytes`. The bandwidth is that of the fastest call: on a
// machine that others use too, it repeats better than a mean.
void add(const std::string& name, double bytes, std::function<Call()> make) {
  benchmark::RegisterBenchmark(name.c_str(),
                               [bytes, make](benchmark::State& state) {
                                 const Call call = make();
                                 call();  // first touch
                                 double best = 1e9;
                                 for (auto _ : state) best = std::min(best, seconds_of(call));
                                 state.counters["best_us"] = best * 1e6;
                                 state.counters["GB/s"] = bytes / best * 1e-9;
                                 state.counters["of_triad"] = bytes / best * 1e-9 / triad_bandwidth();
                               })
      ->Unit(benchmark::kMicrosecond)
      ->UseRealTime();
}

double bytes_of(Dtype t, std::int64_t n) { return static_cast<double>(size_of(t)) * static_cast<double>(n); }

// ---- the optimizer's pass and what goes before it ---------------------------------------------------

struct UpdateCase {
  const char* name;
  Rule rule;
  Store store;
  Dtype moments = f32;
  bool copy = false;
};

/// What a step moves of an element: weight, what completes it and moments are read and written, the gradient is read, a copy is written.
double update_bytes(const UpdateCase& c, Dtype g) {
  const double weight = c.store == Store::f32 ? 8 : c.store == Store::master ? 8 + 2 : c.store == Store::split || c.store == Store::kahan ? 8 : 4;
  const int moments = c.rule == Rule::adam ? 2 : 1;
  return weight + 2.0 * moments * static_cast<double>(size_of(c.moments)) + static_cast<double>(size_of(g)) + (c.copy ? 2 : 0);
}

void add_update(const UpdateCase& c, std::int64_t n, const std::string& suffix) {
  const Dtype g_dtype = c.store == Store::f32 ? f32 : bf16;
  add(fmt::format("{}{}", c.name, suffix), update_bytes(c, g_dtype) * static_cast<double>(n), [=] {
    const bool wide = c.store == Store::f32 || c.store == Store::master, codes = c.moments == u8;
    const Shared truth = array(f32, wide ? n : 1), low = array(bf16, n), rest = array(bf16, wide ? 1 : n, 0), g = array(g_dtype, n),
                 m = array(codes ? bf16 : c.moments, codes ? n / 2 : n, 0.01), v = array(codes ? bf16 : c.moments, codes ? n / 2 : n, 0),
                 m_scale = array(f32, n / kQuantBlock, 0), v_scale = array(f32, n / kQuantBlock, 0);
    Update u;
    u.rule = c.rule, u.store = c.store, u.n = n, u.g = *g, u.g_dtype = g_dtype, u.m = *m, u.v = *v, u.g_scale = 0.5, u.moments = c.moments;
    u.lr = 1e-4, u.weight_decay = 0.1, u.momentum = 0.9, u.bias1 = 0.1, u.bias2 = 0.001, u.master = truth->as<float>(), u.rest = *rest;
    u.m_scale = m_scale->as<float>(), u.v_scale = v_scale->as<float>(), u.stream = 4;
    u.w = c.store == Store::f32 ? truth->as<void>() : low->as<void>();
    if (c.copy) u.copy = low->as<void>();
    return Call([=] {
      (void)truth, (void)low, (void)rest, (void)g, (void)m, (void)v, (void)m_scale, (void)v_scale;  // kept alive
      update(cpu_queue(), u);
    });
  });
}

void add_optimizer() {
  const std::vector<UpdateCase> cases = {
      {"adamw/f32", Rule::adam, Store::f32},
      {"adamw/f32+bf16_copy", Rule::adam, Store::f32, f32, true},
      {"adamw/bf16_master", Rule::adam, Store::master},
      {"adamw/bf16_split", Rule::adam, Store::split},
      {"adamw/bf16_kahan", Rule::adam, Store::kahan, bf16},
      {"adamw/bf16_sr", Rule::adam, Store::stochastic, bf16},
      {"adamw/bf16_pure", Rule::adam, Store::pure},
      {"adamw/f32_bf16_states", Rule::adam, Store::f32, bf16},
      {"adamw/f32_u8_states", Rule::adam, Store::f32, u8},
      {"adamw/bf16_sr_u8_states", Rule::adam, Store::stochastic, u8},
      {"sgd_momentum/f32+bf16_copy", Rule::sgd, Store::f32, f32, true},
      {"adagrad/f32", Rule::adagrad, Store::f32},
      {"lion/f32", Rule::lion, Store::f32},
      {"lion/bf16_sr", Rule::lion, Store::stochastic, bf16},
  };
  // 120 MB in all: out of every cache, and short enough to have the machine to itself now and then; and a GPT-2 of 124M.
  for (const auto& c : cases) add_update(c, 1 << 22, "");
  for (const auto& c : cases)
    if (c.rule == Rule::adam) add_update(c, 124439808 / kQuantBlock * kQuantBlock, "/124M");
  constexpr std::int64_t kN = 1 << 25;
  for (const Dtype t : {f32, bf16, f16}) {
    add(fmt::format("grad_stats/{}", name(t)), bytes_of(t, kN), [=] {
      return [=, g = array(t, kN)] {
        GradStats stats;
        grad_stats(cpu_queue(), t, *g, kN, 0.5, &stats);
        benchmark::DoNotOptimize(stats);
      };
    });
    add(fmt::format("scale_inplace/{}", name(t)), 2 * bytes_of(t, kN),
        [=] { return [=, g = array(t, kN)] { scale_inplace(cpu_queue(), t, *g, kN, 1.0); }; });
  }
}

// ---- rows ----------------------------------------------------------------------------------------

struct Rows {
  std::int64_t rows, c;
};

void add_norm(bool rms, Dtype t, Rows s) {
  const std::int64_t n = s.rows * s.c;
  const std::string suffix = fmt::format("{}/{}x{}", name(t), s.rows, s.c), op = rms ? "rms_norm" : "layer_norm";
  add(fmt::format("{}/{}", op, suffix), 2 * bytes_of(t, n), [=] {
    return [=, x = array(t, n), y = array(t, n), w = array(f32, s.c), b = array(f32, s.c), mean = array(f32, s.rows), rstd = array(f32, s.rows)] {
      layer_norm(cpu_queue(), rms, t, f32, *x, *w, rms ? nullptr : b->as<void>(), *y, *mean, *rstd, s.rows, s.c, 1e-5);
    };
  });
  add(fmt::format("{}_backward/{}", op, suffix), 4 * bytes_of(t, n), [=] {
    return [=, x = array(t, n), dy = array(t, n), dres = array(t, n), dx = array(t, n), w = array(f32, s.c), dw = array(f32, s.c),
            db = array(f32, s.c), mean = array(f32, s.rows), rstd = array(f32, s.rows)] {
      layer_norm_backward(cpu_queue(), rms, t, f32, *x, *w, *mean, *rstd, *dy, *dres, *dx, *dw, rms ? nullptr : db->as<void>(), false, s.rows, s.c);
    };
  });
}

void add_softmax(Dtype t, Rows s) {
  const std::int64_t n = s.rows * s.c;
  const std::string suffix = fmt::format("{}/{}x{}", name(t), s.rows, s.c);
  add("softmax/" + suffix, 2 * bytes_of(t, n),
      [=] { return [=, x = array(t, n), y = array(t, n)] { softmax(cpu_queue(), false, t, t, *x, *y, s.rows, s.c); }; });
  add("softmax_backward/" + suffix, 3 * bytes_of(t, n), [=] {
    return [=, y = array(t, n), dy = array(t, n), dx = array(t, n)] { softmax_backward(cpu_queue(), false, t, t, *y, *dy, *dx, s.rows, s.c); };
  });
}

void add_cross_entropy(Dtype t, Rows s) {
  const std::int64_t n = s.rows * s.c;
  const std::string suffix = fmt::format("{}/{}x{}", name(t), s.rows, s.c);
  const auto target = std::make_shared<std::vector<std::int64_t>>(s.rows);
  for (std::int64_t r = 0; r < s.rows; ++r) (*target)[static_cast<std::size_t>(r)] = r * 7919 % s.c;
  add("cross_entropy/" + suffix, bytes_of(t, n), [=] {
    return [=, x = array(t, n), loss = array(f32, s.rows), lse = array(f32, s.rows)] {
      cross_entropy(cpu_queue(), t, i64, *x, target->data(), *loss, *lse, s.rows, s.c, -100);
    };
  });
  add("cross_entropy_backward/" + suffix, 2 * bytes_of(t, n), [=] {
    return [=, x = array(t, n), dx = array(t, n), lse = array(f32, s.rows)] {
      cross_entropy_backward(cpu_queue(), t, t, i64, *x, target->data(), *lse, nullptr, 0, *dx, s.rows, s.c, -100);
    };
  });
}

void add_rope(Dtype t, bool interleaved) {
  constexpr std::int64_t kRows = 512, kT = 256, kHeads = 9, kD = 64, kN = kRows * kHeads * kD;
  add(fmt::format("rope_{}/{}/{}x{}x{}", interleaved ? "interleaved" : "halves", name(t), kRows, kHeads, kD), 2 * bytes_of(t, kN), [=] {
    return [=, x = array(t, kN), y = array(t, kN), frequencies = array(f32, kD / 2)] {
      rope(cpu_queue(), t, *x, *y, frequencies->as<float>(), nullptr, kRows, kT, kHeads, kD, interleaved, 1);
    };
  });
}

void add_rows() {
  for (const Dtype t : {f32, bf16}) {
    for (const Rows s : {Rows{3072, 384}, Rows{1024, 768}, Rows{40000, 16}}) add_norm(false, t, s);
    add_norm(true, t, {512, 576});
    for (const Rows s : {Rows{18432, 64}, Rows{3072, 1024}, Rows{256, 50257}}) add_softmax(t, s);
    for (const Rows s : {Rows{3072, 65}, Rows{256, 50257}}) add_cross_entropy(t, s);
    add_rope(t, false);
    add_rope(t, true);
  }
}

// ---- element by element ----------------------------------------------------------------------------

void add_elementwise() {
  constexpr std::int64_t kN = 3072 * 1536;  // the small GPT's MLP
  add("convert/f32->bf16", bytes_of(f32, kN) + bytes_of(bf16, kN),
      [] { return [x = array(f32, kN), y = array(bf16, kN)] { convert(cpu_queue(), f32, bf16, *x, *y, kN); }; });
  for (const Dtype t : {f32, bf16}) {
    const auto name_of = [&](const char* op) { return fmt::format("{}/{}", op, name(t)); };
    for (const auto& [op, label] : {std::pair(Unary::gelu_tanh, "gelu_tanh"), std::pair(Unary::gelu, "gelu"), std::pair(Unary::silu, "silu")}) {
      const Unary function = op;
      add(name_of(label), 2 * bytes_of(t, kN),
          [=] { return [=, x = array(t, kN), y = array(t, kN)] { unary(cpu_queue(), function, t, *x, *y, kN); }; });
      add(name_of(fmt::format("{}_backward", label).c_str()), 3 * bytes_of(t, kN), [=] {
        return [=, x = array(t, kN), dy = array(t, kN), dx = array(t, kN)] { unary_backward(cpu_queue(), function, t, *x, *dy, *dx, kN); };
      });
    }
    add(name_of("add"), 3 * bytes_of(t, kN), [=] {
      Strided s;
      s.dims = 1, s.operands = 3, s.size[0] = kN;
      for (auto& stride : s.stride) stride[0] = 1;
      return [=, a = array(t, kN), b = array(t, kN), y = array(t, kN)] { binary(cpu_queue(), Binary::add, t, *a, *b, *y, s); };
    });
    add(name_of("swiglu"), 3 * bytes_of(t, kN),
        [=] { return [=, gate = array(t, kN), up = array(t, kN), y = array(t, kN)] { swiglu(cpu_queue(), t, *gate, *up, *y, kN); }; });
    add(name_of("sum_rows"), bytes_of(t, kN),
        [=] { return [=, x = array(t, kN), sums = array(f32, 1536)] { sum_rows(cpu_queue(), t, *x, sums->as<float>(), 3072, 1536, false); }; });
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("isa", std::string(name(active_isa())));
  benchmark::AddCustomContext("threads", std::to_string(num_threads()));
  benchmark::AddCustomContext("triad_GB/s", fmt::format("{:.1f}", triad_bandwidth()));
  add_optimizer();
  add_rows();
  add_elementwise();
  benchmark::RunSpecifiedBenchmarks();
}
