// mlp_bench.cpp - whole training steps of multilayer perceptrons, each recipe against fp32 in the same seconds, by width and batch.
//
//     bench_mlp [--recipe bf16] [--widths 64,128,...] [--batches 1,8,...] [--layers 3] [--budget SECONDS a point] [--table true]
//
// Two models with the same weights take turns, a few steps each; a point's figure is the ratio of the medians of those turns. --table true prints the
// row for src/train/auto_table.h: the least of the widths from which on no batch of kFewRows and more was slower.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/mezzo.h>

namespace {

using namespace mezzo;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kFewRows = 16;  // below, auto keeps to fp32
constexpr double kNotSlower = 0.97;    // of fp32's speed: what timing on a shared machine can tell from 1

struct Arguments {
  std::string recipe = "bf16";
  std::vector<std::int64_t> widths{32, 64, 128, 256, 512, 1024, 2048, 4096}, batches{1, 8, 16, 32, 128, 512};
  int layers = 3;
  double budget = 2;
  bool table = false;
};

/// A model, its optimizer and its data, with a step to be timed.
class Run {
 public:
  Run(const std::string& recipe_name, std::int64_t width, std::int64_t batch, int layers) {
    manual_seed(1);
    const train::Recipe recipe = train::recipe(recipe_name);
    x_ = randn({batch, width});
    y_ = randn({batch, width});
    model_ = std::make_unique<nn::Mlp>(nn::MlpOptions{.in = width, .width = width, .out = width, .layers = layers});
    optimizer_ = std::make_unique<optim::AdamW>(
        model_->named_parameters(), optim::AdamWOptions{.lr = 1e-4, .storage = recipe.storage, .low = is_16bit(recipe.low) ? recipe.low : bf16});
    step_ = std::make_unique<train::Step>(*optimizer_, train::StepOptions{.recipe = recipe_name, .rows = static_cast<double>(batch)});
  }
  /// Seconds of `n` steps.
  double time(int n) {
    const auto begin = Clock::now();
    for (int i = 0; i < n; ++i) (*step_)([&](int) { return mse_loss((*model_)(x_), y_); });
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

 private:
  Tensor x_, y_;  // (batch, width)
  std::unique_ptr<nn::Mlp> model_;
  std::unique_ptr<optim::AdamW> optimizer_;
  std::unique_ptr<train::Step> step_;
};

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

std::vector<std::int64_t> numbers(std::string_view text) {
  std::vector<std::int64_t> out;
  std::int64_t n = 0;
  for (const char c : text) {
    if (c != ',') n = n * 10 + (c - '0');
    else out.push_back(std::exchange(n, 0));
  }
  out.push_back(n);
  return out;
}

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i], value = argv[i + 1];
    if (name == "--recipe") a.recipe = value;
    else if (name == "--widths") a.widths = numbers(value);
    else if (name == "--batches") a.batches = numbers(value);
    else if (name == "--layers") a.layers = std::stoi(argv[i + 1]);
    else if (name == "--budget") a.budget = std::stod(argv[i + 1]);
    else if (name == "--table") a.table = value == "true";
    else throw Error("unknown option " + std::string(name));
  }
  return a;
}

struct Point {
  double exact, low;  // seconds a step
};
Point measure(const Arguments& a, std::int64_t width, std::int64_t batch) {
  Run exact("fp32", width, batch, a.layers), low(a.recipe, width, batch, a.layers);
  const double once = std::max(exact.time(3), low.time(3)) / 3;
  const int steps = std::clamp(static_cast<int>(0.02 / once), 1, 200);  // of a turn: about 20 ms
  const int turns = std::clamp(static_cast<int>(a.budget / (2 * once * steps)), 5, 1000) | 1;
  exact.time(steps), low.time(steps);
  std::vector<double> t_exact, t_low;
  for (int i = 0; i < turns; ++i) {
    t_exact.push_back(exact.time(steps) / steps);
    t_low.push_back(low.time(steps) / steps);
  }
  return {median(std::move(t_exact)), median(std::move(t_low))};
}

}  // namespace

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  std::printf("width batch  fp32 ms  %8s ms  fp32 / %s\n", a.recipe.c_str(), a.recipe.c_str());
  std::int64_t least_width = 0;  // from here on no batch was slower
  for (const auto width : a.widths) {
    double worst = std::numeric_limits<double>::infinity();
    for (const auto batch : a.batches) {
      const Point p = measure(a, width, batch);
      if (batch >= kFewRows) worst = std::min(worst, p.exact / p.low);
      std::printf("%5lld %5lld %8.3f %11.3f  %5.2f\n", static_cast<long long>(width), static_cast<long long>(batch), 1e3 * p.exact, 1e3 * p.low,
                  p.exact / p.low);
      std::fflush(stdout);
    }
    if (worst < kNotSlower) least_width = 0;
    else if (least_width == 0) least_width = width;
  }
  if (a.table)
    std::printf("    {Isa::%s, %lld, %lld},\n", std::string(name(active_isa())).c_str(), static_cast<long long>(least_width),
                static_cast<long long>(kFewRows));
} catch (const std::exception& e) {
  std::fprintf(stderr, "bench_mlp: %s\n", e.what());
  return 1;
}
