// evaluate.cpp - loss over a text, and the models of run directories.
#include <algorithm>

#include <nlohmann/json.hpp>

#include <mezzo/amp.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "text/batches.h"
#include "train/checkpoint.h"
#include "train/eval_mode.h"
#include "train/trainer.h"
#include "train/vocabulary.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;
}  // namespace

EvalResult evaluate(models::LanguageModel& model, const text::TokenStream& stream, const EvalOptions& o,
                    const std::function<bool(std::int64_t, std::int64_t)>& on_batch) {
  if (o.seq > model.context()) fail("eval", fmt::format("--seq {} given, at most the model's context of {} wanted", o.seq, model.context()));
  text::EvalBatches batches(stream, o.batch, o.seq);
  const std::int64_t windows = o.max_tokens > 0 ? std::clamp<std::int64_t>(o.max_tokens / o.seq, 1, batches.windows()) : batches.windows();
  const GradMode off(false);
  const EvalMode mode(model);
  Tensor x, y;  // (B, T) each
  {
    const MemoryScope scope(Memory::data);
    x = empty({o.batch, o.seq}, {.dtype = Dtype::i32});
    y = empty({o.batch, o.seq}, {.dtype = Dtype::i32});
  }
  double total = 0;
  std::int64_t done = 0;
  while (done < windows) {
    std::int64_t rows = batches.next(x.mutable_data<std::int32_t>(), y.mutable_data<std::int32_t>());
    if (const auto left = windows - done; rows > left) {
      const auto targets = y.mutable_data<std::int32_t>();
      std::fill(targets.begin() + left * o.seq, targets.end(), text::EvalBatches::kIgnored);
      rows = left;
    }
    const amp::Autocast region(o.recipe.low, {.enabled = o.recipe.autocast});
    total += model.loss(x, y).item() * static_cast<double>(rows * o.seq);
    done += rows;
    if (on_batch && !on_batch(done, windows)) break;
  }
  const auto tokens = done * o.seq;
  return {total / static_cast<double>(tokens), tokens};
}

// ---- models of runs ------------------------------------------------------------------------------

namespace {

RunModel from_checkpoint(const fs::path& checkpoint) {
  verify_checkpoint(checkpoint);
  const io::Json config = checkpoint_config(checkpoint);
  const auto spec = config.find("options") != config.end() ? config["options"].value("model", std::string()) : std::string();
  auto model = models::make_model(models::model_from_spec(spec));
  read_weights(checkpoint, model->state_dict());
  return {std::move(model), saved_tokenizer(checkpoint.parent_path().parent_path()), checkpoint};
}

}  // namespace

void write_model(const models::LanguageModel& model, const Tokenizer& tokenizer, const fs::path& dir) {
  models::save_pretrained(model, dir);
  save_tokenizer(tokenizer, dir, model.context());
}

RunModel load_run_model(const fs::path& dir) {
  if (!present(dir))
    fail("model", fmt::format("{}: nothing of that name is there", dir.native()),
         "give a run directory, or one with model.safetensors and config.json");
  if (present(dir / "manifest.json")) return from_checkpoint(dir);
  if (present(dir / "model.safetensors")) return {models::load_pretrained(dir), model_tokenizer(dir), dir};
  if (present(dir / "model" / "model.safetensors")) return load_run_model(dir / "model");
  const auto steps = checkpoint_steps(dir);
  if (steps.empty()) fail("model", fmt::format("{}: no model/ and no checkpoint in it", dir.native()), "has the run reached its first checkpoint?");
  return from_checkpoint(checkpoint_path(dir, steps.back()));
}

}  // namespace mezzo::train
