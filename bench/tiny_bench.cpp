// tiny_bench.cpp - what an op costs beside its arithmetic: nanoseconds of the tape forward and backward on tensors of a few elements; steps of a tiny
// MLP.
//
//     bench_tiny [--size 8] [--repeats 15] [--threads 1]                   # a table: op, ns forward, ns backward
//     bench_tiny --mlp true [--width 64] [--batch 32] [--seconds 2] [--threads 2]     # one JSON object, as bench/peers/mlp_torch.py prints it
//
// An op is timed in a chain of a thousand; the figure is the least of the repeats, divided by their number.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/mezzo.h>

#include "stopwatch.h"

namespace {

using namespace mezzo;
using bench::seconds;

constexpr int kChain = 1000;

struct Arguments {
  bool mlp = false;
  std::int64_t size = 8, width = 64, batch = 32;
  int repeats = 15;
  double budget = 2;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const std::string value = argv[i + 1];
    if (name == "--mlp") a.mlp = value == "true";
    else if (name == "--size") a.size = std::stoll(value);
    else if (name == "--width") a.width = std::stoll(value);
    else if (name == "--batch") a.batch = std::stoll(value);
    else if (name == "--repeats") a.repeats = std::stoi(value);
    else if (name == "--seconds") a.budget = std::stod(value);
    else if (name == "--threads") set_num_threads(std::stoi(value));
    else throw Error("unknown option " + std::string(name));
  }
  return a;
}

struct Cost {
  double forward, backward;  // ns an op
};
/// Of `op`, which maps a tensor to one of the same shape.
Cost cost(const std::function<Tensor(const Tensor&)>& op, const Tensor& x, int repeats) {
  Cost best{1e9, 1e9};
  const Tensor dy = ones(x.shape());
  for (int r = 0; r < repeats; ++r) {
    const double begin = seconds();
    Tensor y = x;
    for (int i = 0; i < kChain; ++i) y = op(y);
    const double middle = seconds();
    y.backward({.gradient = dy});
    y = {};  // a graph's end is part of its price
    best = {std::min(best.forward, 1e9 * (middle - begin) / kChain), std::min(best.backward, 1e9 * (seconds() - middle) / kChain)};
  }
  return best;
}

void time_ops(const Arguments& a) {
  const std::int64_t n = a.size;
  const Tensor x = rand({n, n}, {.requires_grad = true}), w = rand({n, n}, {.requires_grad = true}), b = rand({n}, {.requires_grad = true});
  const std::pair<const char*, std::function<Tensor(const Tensor&)>> ops[] = {
      {"neg(x)", [](const Tensor& t) { return neg(t); }},
      {"x + 1", [](const Tensor& t) { return add(t, 1.0); }},
      {"relu(x)", [](const Tensor& t) { return relu(t); }},
      {"gelu(x)", [](const Tensor& t) { return gelu(t); }},
      {"x + w", [&](const Tensor& t) { return add(t, w); }},
      {"x * w", [&](const Tensor& t) { return mul(t, w); }},
      {"transpose", [](const Tensor& t) { return t.transpose(0, 1); }},
      {"layer_norm", [&](const Tensor& t) { return layer_norm(t, b, b); }},
      {"softmax", [](const Tensor& t) { return softmax(t, -1); }},
      {"matmul(x, w)", [&](const Tensor& t) { return matmul(t, w); }},
      {"linear(x, w, b)", [&](const Tensor& t) { return linear(t, w, b); }},
  };
  std::printf("%-18s %10s %10s   (%lld x %lld, f32)\n", "op", "forward ns", "backward", static_cast<long long>(n), static_cast<long long>(n));
  for (const auto& [name, op] : ops) {
    const Cost c = cost(op, x, a.repeats);
    std::printf("%-18s %10.0f %10.0f\n", name, c.forward, c.backward);
  }
}

void time_mlp(const Arguments& a) {
  constexpr int kWarmup = 200, kTurn = 50;
  manual_seed(0);
  nn::Mlp model({.in = a.width, .width = a.width, .out = a.width, .layers = 2});
  optim::AdamW optimizer(model.named_parameters(), {.lr = 1e-4});
  const Tensor x = randn({a.batch, a.width}), y = randn({a.batch, a.width});
  double loss_value = 0;
  const auto steps = [&](int count) {  // the loop that a user writes; train::Step does a little more
    for (int i = 0; i < count; ++i) {
      optimizer.zero_grad();
      const Tensor loss = mse_loss(model(x), y);
      loss.backward();
      optimizer.step();
      loss_value = loss.item();
    }
  };
  steps(kWarmup);
  std::vector<double> ms;
  for (const double begin = seconds(); seconds() - begin < a.budget;) {
    const double start = seconds();
    steps(kTurn);
    ms.push_back(1e3 * (seconds() - start) / kTurn);
  }
  std::nth_element(ms.begin(), ms.begin() + static_cast<std::ptrdiff_t>(ms.size() / 2), ms.end());
  const double median = ms[ms.size() / 2];
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf("{\"step_ms_median\":%.6f,\"tokens_per_second\":%.1f,\"peak_rss_bytes\":%lld,\"threads\":%d,\"loss\":%g}\n", median,
              1e3 * static_cast<double>(a.batch) / median, static_cast<long long>(usage.ru_maxrss) * 1024, num_threads(), loss_value);
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  a.mlp ? time_mlp(a) : time_ops(a);
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_tiny: %s\n", e.what());
  return 1;
}
