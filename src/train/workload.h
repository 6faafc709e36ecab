// workload.h - what a run learns from: micro-batches in an order of their own, the loss of one, the loss on what is held out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <mezzo/models.h>
#include <mezzo/train.h>

#include "io/json.h"
#include "text/corpus.h"

namespace mezzo::train {

struct TrainOptions;

class Workload {
 public:
  virtual ~Workload() = default;

  /// What it is, for config.json ("data"). `fingerprint` decides whether a resumed run still has the same.
  virtual io::Json describe() const = 0;
  /// Steps that so many passes over it take, and passes that so many steps make.
  virtual std::int64_t steps_of(std::int64_t epochs) const = 0;
  virtual double passes_of(std::int64_t steps) const = 0;

  /// How much was taken since the beginning of training: all that a checkpoint needs to know of it.
  virtual std::int64_t position() const = 0;
  virtual void seek(std::int64_t position) = 0;

  /// Takes the micro-batches of the next step; returns their tokens, padding not counted.
  virtual std::int64_t next_step() = 0;
  /// The loss of one of them, such that their mean is the loss of the step. The same however often it is asked for.
  virtual Tensor loss(models::LanguageModel&, int micro) = 0;

  /// Mean loss a token of what is held out, of about `max_tokens` of it (0: all); none if nothing is. The model's mode is put back.
  virtual std::optional<double> validate(models::LanguageModel&, const Recipe&, std::int64_t max_tokens) const = 0;
};

/// Inputs and targets of the largest micro-batch that a run can have, i32, and how its documents lie: what loss() fills and the plan counts.
struct MicroTensors {
  Tensor x, y;
  models::Sequence sequence;
};
MicroTensors largest_micro_batch(const TrainOptions&);

/// Windows of text: `mezzo train`.
std::unique_ptr<Workload> text_workload(const TrainOptions&, text::Documents, const Tokenizer&);
/// Conversations and texts of a JSONL file: `mezzo finetune`.
std::unique_ptr<Workload> example_workload(const TrainOptions&, const Tokenizer&);

/// A run's data, read and checked, and the tokenizer it is read with: the model's, the run's, or one learnt from the text.
struct RunData {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Workload> work;
};
RunData read_data(const TrainOptions&, const models::ModelOptions&);

}  // namespace mezzo::train
