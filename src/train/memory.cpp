// memory.cpp - what a step needs, learnt by running it dry: the trainer's own model, optimizer and step, on memory that nothing touches.
#include <algorithm>
#include <chrono>
#include <limits>
#include <numeric>

#include <mezzo/random.h>

#include "core/dry_run.h"
#include "kernels/work_log.h"
#include "train/machinery.h"
#include "train/rules.h"
#include "train/trainer.h"
#include "train/workload.h"

namespace mezzo::train {

namespace {

/// Puts the process's thread count and default generator back: a plan leaves no trace, whatever it meets.
class Untouched {
 public:
  Untouched() = default;
  ~Untouched() {
    set_num_threads(threads_);
    default_generator() = random_;
  }
  Untouched(const Untouched&) = delete;
  Untouched& operator=(const Untouched&) = delete;

 private:
  int threads_ = num_threads();
  Generator random_ = default_generator();
};

}  // namespace

MemoryPlan plan_bytes(const models::ModelOptions& model, const TrainOptions& options, const PrecisionPlan& plan) {
  const Untouched process;
  if (options.threads > 0) set_num_threads(options.threads);
  const DryRun dry;
  Machinery m = build(model, options, plan);
  const MicroTensors micro = largest_micro_batch(options);
  const auto step = [&] { (*m.step)([&](int) { return m.model->loss(micro.x, micro.y, micro.sequence); }); };
  step();  // gradients, moments and casts are made in the first
  reset_peak_memory();
  const std::int64_t before = dry.allocated();
  const kernels::WorkLog log;
  step();
  const MemoryReport report = memory_report();
  std::int64_t trained = 0;
  for (const auto& [path, w] : m.weights) trained += w.numel() * static_cast<std::int64_t>(size_of(w.dtype()));
  std::int64_t elements = 0;
  for (const auto& [path, w] : models::trainable_parameters(*m.model)) elements += w.numel();
  const auto of = [&](Memory c) { return report.at_peak[static_cast<std::size_t>(c)]; };
  return {.bytes = report.at_peak,
          .peak = report.peak,
          .products = log.products(),
          .attention_flops = log.attention_flops(),
          .written = dry.allocated() - before,
          .trained = elements,
          .checkpoint = trained + of(Memory::masters) + of(Memory::optimizer)};
}

std::array<double, kParts> try_steps(const models::ModelOptions& model, const TrainOptions& options, const PrecisionPlan& plan, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr int kWarmup = 2, kLeast = 5;
  const Untouched process;
  if (options.threads > 0) set_num_threads(options.threads);
  std::vector<PartClock::Seconds> steps;
  {
    Machinery m = build(model, options, plan);
    MicroTensors micro = largest_micro_batch(options);
    for (Tensor* t : {&micro.x, &micro.y})
      for (auto& id : t->mutable_data<std::int32_t>())
        id = static_cast<std::int32_t>(default_generator().below(static_cast<std::uint64_t>(models::vocab(model))));
    const auto begin = Clock::now();
    for (int i = 0; i < kWarmup + kLeast || Clock::now() - begin < std::chrono::duration<double>(seconds); ++i) {
      PartClock::start();
      (*m.step)([&](int) { return m.model->loss(micro.x, micro.y, micro.sequence); });
      if (const auto parts = PartClock::stop(); i >= kWarmup) steps.push_back(parts);
    }
  }
  release_cached_memory();
  const auto whole = [](const PartClock::Seconds& parts) { return std::accumulate(parts.begin(), parts.end(), 0.0); };
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end(), [&](const auto& a, const auto& b) { return whole(a) < whole(b); });
  std::array<double, kParts> ms = *middle;
  for (double& part : ms) part *= 1e3;
  return ms;
}

double try_update(const TrainOptions& options, const PrecisionPlan& plan, std::int64_t elements) {
  using Clock = std::chrono::steady_clock;
  constexpr std::int64_t kColumns = 1024;
  constexpr int kTimes = 4;
  const Untouched process;
  if (options.threads > 0) set_num_threads(options.threads);
  double best = std::numeric_limits<double>::infinity();
  {
    const Tensor w = randn({elements / kColumns, kColumns}, {.requires_grad = true});
    const auto optimizer = make_optimizer(options, plan.recipe, {{.params = {w}, .lr = options.lr, .weight_decay = options.weight_decay}});
    w.set_grad(full(w.shape(), 1e-3, {.dtype = w.dtype()}));
    optimizer->step();  // makes the moments
    for (int i = 0; i < kTimes; ++i) {
      const auto begin = Clock::now();
      optimizer->step();
      best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
    }
  }
  release_cached_memory();
  return best;
}

MemoryPlan plan_bytes(const TrainOptions& asked) {
  check(asked);
  const auto model = shape_of(asked);
  TrainOptions options = asked;
  choose_seq(options, model);
  return plan_bytes(model, options, precision_of(options, model));
}

}  // namespace mezzo::train
