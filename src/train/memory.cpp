// memory.cpp - what a step needs, learnt by running it dry: the trainer's own model, optimizer and step, on memory that nothing touches.
#include <mezzo/random.h>

#include "core/dry_run.h"
#include "kernels/work_log.h"
#include "train/machinery.h"
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
  const auto of = [&](Memory c) { return report.at_peak[static_cast<std::size_t>(c)]; };
  return {.bytes = report.at_peak,
          .peak = report.peak,
          .products = log.products(),
          .attention_flops = log.attention_flops(),
          .written = dry.allocated() - before,
          .checkpoint = trained + of(Memory::masters) + of(Memory::optimizer)};
}

MemoryPlan plan_bytes(const TrainOptions& options) {
  check(options);
  const auto model = shape_of(options);
  return plan_bytes(model, options, precision_of(options, model));
}

}  // namespace mezzo::train
