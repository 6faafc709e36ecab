// text_workload.cpp - windows of text, shuffled: what `mezzo train` learns from.
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "text/batches.h"
#include "train/trainer.h"
#include "train/workload.h"

namespace mezzo::train {
namespace {

class TextWorkload final : public Workload {
 public:
  TextWorkload(const TrainOptions& o, text::Documents documents, const Tokenizer& tokenizer)
      : options_(o),
        corpus_(std::move(documents), tokenizer, {.seq = o.seq, .val_fraction = o.val_fraction}),
        batches_(corpus_.train(), {.batch = o.batch, .seq = o.seq, .seed = o.seed}),
        micro_(largest_micro_batch(o)) {}

  io::Json describe() const override {
    return {{"files", corpus_.files()},
            {"bytes", corpus_.bytes()},
            {"fingerprint", fmt::format("{:016x}", corpus_.fingerprint())},
            {"train_tokens", corpus_.train().size()},
            {"validation_tokens", corpus_.validation().size()}};
  }
  std::int64_t steps_of(std::int64_t epochs) const override {
    const std::int64_t windows = options_.batch * options_.accumulate;
    return (epochs * batches_.windows() + windows - 1) / windows;
  }
  double passes_of(std::int64_t steps) const override {
    return static_cast<double>(steps * options_.batch * options_.accumulate) / static_cast<double>(batches_.windows());
  }

  std::int64_t position() const override { return position_; }
  void seek(std::int64_t position) override { position_ = position; }

  std::int64_t next_step() override {
    first_ = position_;
    position_ += options_.batch * options_.accumulate;
    return options_.batch * options_.seq * options_.accumulate;
  }
  Tensor loss(models::LanguageModel& model, int micro) override {
    batches_.seek(first_ + micro * options_.batch);
    batches_.next(micro_.x.mutable_data<std::int32_t>(), micro_.y.mutable_data<std::int32_t>());
    return model.loss(micro_.x, micro_.y);
  }

  std::optional<double> validate(models::LanguageModel& model, const Recipe& recipe, std::int64_t max_tokens) const override {
    if (corpus_.validation().size() <= options_.seq) return std::nullopt;
    return evaluate(model, corpus_.validation(), {.batch = options_.batch, .seq = options_.seq, .max_tokens = max_tokens, .recipe = recipe}).loss;
  }

 private:
  TrainOptions options_;
  text::Corpus corpus_;
  text::Batches batches_;
  MicroTensors micro_;
  std::int64_t position_ = 0, first_ = 0;  // windows: taken so far, and before this step
};

}  // namespace

std::unique_ptr<Workload> text_workload(const TrainOptions& o, text::Documents documents, const Tokenizer& tokenizer) {
  return std::make_unique<TextWorkload>(o, std::move(documents), tokenizer);
}

}  // namespace mezzo::train
