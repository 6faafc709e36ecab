// memory.cpp - what a step needs, learnt by running it dry: the trainer's own model, optimizer and step, on memory that nothing touches.
#include <mezzo/random.h>

#include "core/dry_run.h"
#include "kernels/work_log.h"
#include "train/machinery.h"
#include "train/vocabulary.h"
#include "train/trainer.h"

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
  const auto step = [&] { (*m.step)([&](int) { return m.model->loss(m.x, m.y); }); };
  step();  // gradients, moments and casts are made in the first
  reset_peak_memory();
  const std::int64_t before = dry.allocated();
  const kernels::WorkLog log;
  step();
  const MemoryReport report = memory_report();
  return {.bytes = report.at_peak,
          .peak = report.peak,
          .products = log.products(),
          .attention_flops = log.attention_flops(),
          .written = dry.allocated() - before};
}

MemoryPlan plan_bytes(const TrainOptions& options) {
  check(options);
  const auto model = resolve_model(options, vocab_of(options));
  return plan_bytes(model, options,
                    resolve({.precision = options.precision, .loss_scale = options.loss_scale, .width = static_cast<double>(models::width(model))}));
}

}  // namespace mezzo::train
