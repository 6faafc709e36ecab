// memory.cpp - what a step needs, learnt by running it dry: the trainer's own model, optimizer and step, on memory that nothing touches.
#include <mezzo/random.h>

#include "core/dry_run.h"
#include "kernels/work_log.h"
#include "train/machinery.h"
#include "train/trainer.h"

namespace mezzo::train {

MemoryPlan plan_bytes(const models::ModelOptions& model, const TrainOptions& options, const PrecisionPlan& plan) {
  const Generator random = default_generator();
  const int threads = num_threads();
  if (options.threads > 0) set_num_threads(options.threads);
  MemoryPlan out;
  {
    const DryRun dry;
    Machinery m = build(model, options, plan);
    const auto step = [&] { (*m.step)([&](int) { return m.model->loss(m.x, m.y); }); };
    step();  // gradients, moments and casts are made in the first
    reset_peak_memory();
    const std::int64_t before = dry.allocated();
    const kernels::WorkLog log;
    step();
    out.written = dry.allocated() - before;
    out.products = log.products();
    out.attention_flops = log.attention_flops();
    const MemoryReport report = memory_report();
    out.peak = report.peak;
    out.bytes = report.at_peak;
  }
  set_num_threads(threads);
  default_generator() = random;
  return out;
}

MemoryPlan plan_bytes(const TrainOptions& options) {
  check(options);
  const auto model = resolve_model(options, ByteTokenizer().vocab_size());
  return plan_bytes(model, options,
                    resolve({.precision = options.precision, .loss_scale = options.loss_scale, .width = static_cast<double>(models::width(model))}));
}

}  // namespace mezzo::train
