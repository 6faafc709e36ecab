// tuning_support.h - small models, examples and options for tests of fine-tuning.
#pragma once

#include <mezzo/models.h>

#include "train/options.h"
#include "train/run_model.h"
#include "train/support.h"

namespace mezzo::test {

namespace fs = std::filesystem;

/// A model in Hugging Face's layout, its tokens bytes.
inline fs::path write_base_of(const TempDir& dir, const char* name, std::uint64_t seed, const std::string& spec) {
  manual_seed(seed);
  const auto model = models::make_model(models::model_from_spec(spec));
  fs::create_directories(dir / name);
  train::write_model(*model, ByteTokenizer(), dir / name);
  return dir / name;
}
/// A small Llama.
inline fs::path write_base(const TempDir& dir, const char* name = "base", std::uint64_t seed = 5, int width = 32) {
  return write_base_of(dir, name, seed, fmt::format("llama:layers=2,heads=2,kv_heads=1,width={},ffn={},vocab=256,context=64", width, 2 * width));
}

/// Questions with one answer each, of several lengths.
inline std::string some_examples(int n) {
  const char* colours[] = {"red", "green", "blue", "white"};
  std::string lines;
  for (int i = 0; i < n; ++i)
    lines += fmt::format("{{\"prompt\": \"{}{}?\", \"completion\": \" It is {}.\"}}\n", i % 3 == 0 ? "What colour is number " : "Colour of ", i,
                         colours[i % 4]);
  return lines;
}

inline train::TrainOptions small_tuning(const TempDir& dir, std::string_view out, std::string precision = "fp32", bool full = false) {
  train::TrainOptions o = train::tuning_defaults(full);
  if (!fs::exists(dir / "base")) write_base(dir);
  if (!fs::exists(dir / "chat.jsonl")) spit(dir / "chat.jsonl", some_examples(20));
  o.model = (dir / "base").native();
  o.data = dir / "chat.jsonl";
  o.out = dir / out;
  o.precision = std::move(precision);
  o.tune->lora.rank = 4;
  o.tune->lora.dropout = full ? 0 : 0.1;
  o.batch = 2;
  o.seq = 48;
  o.steps = 6;
  o.epochs = 0;
  o.lr = full ? 1e-3 : 1e-2;
  o.seed = 3;
  o.checkpoint_steps = 0;
  o.eval_steps = 3;
  o.threads = 1;
  return o;
}

/// The run in another directory, stopped after three of its steps and resumed.
inline train::TrainSummary run_in_two(train::TrainOptions o, const fs::path& out) {
  o.out = out;
  int asked = 0;
  train::Trainer(o).run({}, [&] { return ++asked == 3; });
  o.resume = true;
  return run(o);
}

inline StateDict weights_of(const fs::path& checkpoint) { return load(checkpoint / "weights.safetensors"); }

inline std::string refused(const train::TrainOptions& o) {
  return error_of([&] { train::Trainer t(o); });
}

/// Losses of the steps, as metrics.jsonl has them.
inline std::vector<double> losses_of(const fs::path& run) {
  std::vector<double> out;
  for (const auto& line : metrics_of(run)) out.push_back(line["loss"].get<double>());
  return out;
}

}  // namespace mezzo::test
