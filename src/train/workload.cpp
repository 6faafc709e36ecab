// workload.cpp - what both kinds of runs share.
#include "train/workload.h"

#include "train/trainer.h"
#include "train/vocabulary.h"

namespace mezzo::train {

MicroTensors largest_micro_batch(const TrainOptions& o) {
  const MemoryScope scope(Memory::data);
  const bool packed = o.tune && o.tune->packing;
  const Shape shape = packed ? Shape{1, o.batch * o.seq} : Shape{o.batch, o.seq};
  models::Sequence sequence;
  if (packed) sequence.lengths.assign(static_cast<std::size_t>(o.batch), o.seq);
  return {.x = empty(shape, {.dtype = Dtype::i32}), .y = empty(shape, {.dtype = Dtype::i32}), .sequence = std::move(sequence)};
}

RunData read_data(const TrainOptions& o, const models::ModelOptions& shape) {
  RunData data;
  if (o.tune) {
    data.tokenizer = base_tokenizer(o, shape);
    data.work = example_workload(o, *data.tokenizer);
  } else {
    text::Documents documents(o.data);
    data.tokenizer = o.resume ? saved_tokenizer(o.out) : make_tokenizer(o, documents);
    data.work = text_workload(o, std::move(documents), *data.tokenizer);
  }
  return data;
}

}  // namespace mezzo::train
