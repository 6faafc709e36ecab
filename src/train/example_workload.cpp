// example_workload.cpp - conversations and texts of a JSONL file, packed or padded: what `mezzo finetune` learns from.
//
// The loss of a step is the sum over its tokens that carry loss, divided by their number: a micro-batch with few of them weighs little, and how
// examples are laid out does not matter.
#include <algorithm>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <mezzo/ops.h>

#include "autograd/context.h"
#include "io/checksum.h"
#include "text/chat_template.h"
#include "text/example_batches.h"
#include "train/eval_mode.h"
#include "train/example_eval.h"
#include "train/trainer.h"
#include "train/workload.h"

namespace mezzo::train {
namespace {

text::ExampleSplit read(const TrainOptions& o, const Tokenizer& tokenizer) {
  const TuneOptions& t = *o.tune;
  std::optional<text::ChatTemplate> loaded;
  const text::ChatSource chat = [&]() -> const text::ChatTemplate* {
    if (!loaded) loaded = text::load_chat_template(template_path(o), tokenizer, t.started);
    return loaded ? &*loaded : nullptr;
  };
  const text::ExampleOptions options{.window = o.seq, .overlong = t.overlong, .skip_bad_lines = t.skip_bad_lines, .train_on = t.train_on};
  const auto examples = [&](const std::filesystem::path& file) { return text::read_examples(file, tokenizer, chat, options); };
  if (!t.eval_data.empty()) return {.train = examples(o.data), .held_out = examples(t.eval_data)};
  if (o.val_fraction == 0) return {.train = examples(o.data), .held_out = {}};
  return text::split(examples(o.data), o.val_fraction, o.seed);
}

/// The loss of all tokens that carry loss, in tensors that `x` and `y` have room for.
Tensor sum_of(models::LanguageModel& model, const text::MicroBatch& m, const Tensor& x, const Tensor& y) {
  const auto filled = [&](Tensor t, const std::vector<std::int32_t>& values) {
    std::copy(values.begin(), values.end(), t.mutable_data<std::int32_t>().begin());
    return t.reshape({t.numel()}).narrow(0, 0, m.rows * m.columns).reshape({m.rows, m.columns});
  };
  return model.loss(filled(x, m.ids), filled(y, m.targets), {.lengths = m.lengths}, {.reduction = Reduction::sum});
}

class ExampleWorkload final : public Workload {
 public:
  ExampleWorkload(const TrainOptions& o, const Tokenizer& tokenizer)
      : options_(o),
        layout_{.batch = o.batch,
                .window = o.seq,
                .pack = o.tune->packing,
                .shuffle = true,
                .seed = o.seed,
                .padding = tokenizer.end_of_text().value_or(0)},
        sets_(read(o, tokenizer)),
        batches_(sets_.train, layout_),
        micro_(largest_micro_batch(o)) {}

  io::Json describe() const override {
    const auto& c = sets_.train.counts;
    const std::array<std::uint64_t, 2> both{sets_.train.fingerprint(), sets_.held_out.fingerprint()};
    return {{"fingerprint", fmt::format("{:016x}", io::checksum64(std::as_bytes(std::span(both))))},
            {"examples", sets_.train.examples.size()},
            {"tokens", sets_.train.tokens()},
            {"targets", sets_.train.targets()},
            {"held_out", {{"examples", sets_.held_out.examples.size()}, {"tokens", sets_.held_out.tokens()}, {"targets", sets_.held_out.targets()}}},
            {"lines", c.lines},
            {"bad_lines", c.bad_lines},
            {"first_bad", c.first_bad},
            {"overlong", c.overlong},
            {"dropped", c.dropped}};
  }
  std::int64_t steps_of(std::int64_t epochs) const override { return (batches_.batches_of(epochs) + options_.accumulate - 1) / options_.accumulate; }
  double passes_of(std::int64_t steps) const override {
    return static_cast<double>(steps * options_.accumulate) / static_cast<double>(batches_.batches_of(1));
  }

  std::int64_t position() const override { return batches_.position(); }
  void seek(std::int64_t position) override { batches_.seek(position); }

  std::int64_t next_step() override {
    step_ = batches_.next(options_.accumulate);
    counted_ = 0;
    std::int64_t tokens = 0;
    for (const auto& m : step_) {
      counted_ += m.counted;
      tokens += m.tokens;
    }
    return tokens;
  }
  Tensor loss(models::LanguageModel& model, int micro) override {
    const double share = static_cast<double>(options_.accumulate) / static_cast<double>(counted_);  // Step takes the mean of the micro-batches
    return mul(sum_of(model, step_[static_cast<std::size_t>(micro)], micro_.x, micro_.y), share);
  }

  std::optional<double> validate(models::LanguageModel& model, const Recipe& recipe, std::int64_t max_tokens) const override {
    if (sets_.held_out.examples.empty()) return std::nullopt;
    auto layout = layout_;
    layout.shuffle = false;
    return evaluate(model, sets_.held_out, {.layout = layout, .max_tokens = max_tokens, .recipe = recipe}).loss;
  }

 private:
  TrainOptions options_;
  text::ExampleBatchesOptions layout_;
  text::ExampleSplit sets_;
  text::ExampleBatches batches_;
  MicroTensors micro_;
  std::vector<text::MicroBatch> step_;  // the micro-batches of this step
  std::int64_t counted_ = 0;            // tokens of theirs that carry loss
};

}  // namespace

EvalResult evaluate(models::LanguageModel& model, const text::ExampleSet& set, const ExampleEvalOptions& o,
                    const std::function<bool(std::int64_t, std::int64_t)>& on_batch) {
  const GradMode off(false);
  const EvalMode mode(model);
  const amp::Autocast region(o.recipe.low, {.enabled = o.recipe.autocast});
  text::ExampleBatches all(set, o.layout);
  Tensor x, y;  // (B, T) each
  {
    const MemoryScope scope(Memory::data);
    x = empty({o.layout.batch, o.layout.window}, {.dtype = Dtype::i32});
    y = empty({o.layout.batch, o.layout.window}, {.dtype = Dtype::i32});
  }
  double sum = 0;
  std::int64_t counted = 0;
  const std::int64_t batches = all.batches_of(1);
  for (std::int64_t done = 0; done < batches && (o.max_tokens == 0 || counted < o.max_tokens);) {
    const text::MicroBatch m = all.next(1).front();
    sum += sum_of(model, m, x, y).item();
    counted += m.counted;
    if (++done; on_batch && !on_batch(done, batches)) break;
  }
  return {sum / static_cast<double>(counted), counted};
}

std::unique_ptr<Workload> example_workload(const TrainOptions& o, const Tokenizer& tokenizer) {
  return std::make_unique<ExampleWorkload>(o, tokenizer);
}

}  // namespace mezzo::train
