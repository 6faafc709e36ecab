// evaluate.cpp - loss over a text.
#include <algorithm>

#include <mezzo/amp.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "text/batches.h"
#include "train/eval_mode.h"
#include "train/trainer.h"

namespace mezzo::train {

EvalResult evaluate(models::LanguageModel& model, const text::TokenStream& stream, const EvalOptions& o,
                    const std::function<bool(std::int64_t, std::int64_t)>& on_batch) {
  text::EvalBatches batches(stream, {.batch = o.batch, .seq = o.seq, .stride = o.stride, .begin = o.begin});
  const std::int64_t columns = batches.columns(), stride = o.stride > 0 ? o.stride : o.seq;
  if (columns > model.context()) fail("eval", fmt::format("--seq {} given, at most the model's context of {} wanted", o.seq, model.context()));
  const std::int64_t windows = o.max_tokens > 0 ? std::clamp<std::int64_t>(o.max_tokens / stride, 1, batches.windows()) : batches.windows();
  const GradMode off(false);
  const EvalMode mode(model);
  Tensor x, y;  // (B, columns) each
  {
    const MemoryScope scope(Memory::data);
    x = empty({o.batch, columns}, {.dtype = Dtype::i32});
    y = empty({o.batch, columns}, {.dtype = Dtype::i32});
  }
  double total = 0;
  std::int64_t done = 0, tokens = 0;
  while (done < windows) {
    std::int64_t rows = batches.next(x.mutable_data<std::int32_t>(), y.mutable_data<std::int32_t>());
    const auto targets = y.mutable_data<std::int32_t>();
    if (const auto left = windows - done; rows > left) {
      std::fill(targets.begin() + left * columns, targets.end(), text::EvalBatches::kIgnored);
      rows = left;
    }
    const auto counted = std::count_if(targets.begin(), targets.end(), [](std::int32_t t) { return t != text::EvalBatches::kIgnored; });
    const amp::Autocast region(o.recipe.low, {.enabled = o.recipe.autocast});
    total += model.loss(x, y).item() * static_cast<double>(counted);
    tokens += counted;
    done += rows;
    if (on_batch && !on_batch(done, windows)) break;
  }
  return {total / static_cast<double>(tokens), tokens};
}

}  // namespace mezzo::train
