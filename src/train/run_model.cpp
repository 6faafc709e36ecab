// run_model.cpp - tells what lies at a path, loads it, and writes it in each layout.
#include "train/run_model.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/file.h"
#include "io/gguf.h"
#include "models/export.h"
#include "text/chat_template.h"
#include "train/checkpoint.h"
#include "train/options.h"
#include "train/vocabulary.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;

/// Of a run of `mezzo finetune`: its base, and what was trained of it or beside it.
RunModel from_tuning(const fs::path& checkpoint, const TrainOptions& run, models::LoadOptions options) {
  const TuneOptions& t = *run.tune;
  if (t.full) options.keep_blocks = false;
  options.quantize = t.quantize_base;
  options.keep_blocks = options.keep_blocks || !t.quantize_base.empty();
  auto model = models::load_pretrained(run.model, options);
  if (!t.full) models::add_lora(*model, t.lora);
  read_weights(checkpoint, t.full ? model->state_dict() : models::trainable_parameters(*model));
  TrainOptions here = run;
  here.out = checkpoint.parent_path().parent_path();
  return {std::move(model), model_tokenizer(run.model), checkpoint, run.model, template_path(here)};
}

/// An adapter in a GGUF file does not say which model it is for.
void refuse_adapter_file(const fs::path& path) {
  constexpr std::string_view kKind = "general.type";
  if (path.extension() != ".gguf") return;
  const io::GgufFile file(path);
  if (file.field(kKind) && file.string(kKind) == "adapter")
    fail("model", fmt::format("{}: an adapter alone, a model wanted", path.native()),
         "give the run or the directory it was exported from, or what `mezzo export --merge` makes of that; llama.cpp takes this file with --lora");
}

RunModel from_checkpoint(const fs::path& checkpoint, const models::LoadOptions& options) {
  verify_checkpoint(checkpoint);
  const io::Json config = checkpoint_config(checkpoint);
  if (const auto it = config.find("options"); it != config.end() && it->contains("tune"))
    return from_tuning(checkpoint, options_from_json(*it, checkpoint.native()), options);
  const auto spec = config.find("options") != config.end() ? config["options"].value("model", std::string()) : std::string();
  auto model = models::make_model(models::model_from_spec(spec));
  read_weights(checkpoint, model->state_dict());
  const fs::path run = checkpoint.parent_path().parent_path();
  return {std::move(model), saved_tokenizer(run), checkpoint, run, run};
}

RunModel from_adapter(const fs::path& dir, const models::LoadOptions& options) {
  RunModel m = load_run_model(models::adapter_base(dir), options);
  models::load_adapter(*m.model, dir);
  m.source = dir;
  if (present(dir / kTemplateCopy)) m.chat = dir / kTemplateCopy;
  return m;
}

/// Whether the file that the path comes to holds matrices in blocks.
bool lies_in_blocks(const fs::path& path) {
  if (models::is_adapter(path)) return lies_in_blocks(models::adapter_base(path));
  if (models::is_adapter(path / "model")) return lies_in_blocks(path / "model");
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return false;
  const io::GgufFile file(path);
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const io::GgufTensor& t) { return t.encoding.blocks.has_value(); });
}

}  // namespace

bool holds_weights(const fs::path& dir) { return present(dir / "model.safetensors") || present(dir / "model.safetensors.index.json"); }

Recipe recipe_for_asking(std::string_view precision, const fs::path& path) {
  return recipe(precision == "auto" && lies_in_blocks(path) ? "fp32" : precision);
}

void write_model(const models::LanguageModel& model, const Tokenizer& tokenizer, const fs::path& dir) {
  models::save_pretrained(model, dir);
  save_tokenizer(tokenizer, dir, model.context());
}

namespace {

void write_own_template(const RunModel& m, const fs::path& dir) {
  if (m.chat != m.base) io::write_file(dir / kTemplateCopy, text::read_chat_template(m.chat));
}

}  // namespace

void write_adapter(const RunModel& m, const fs::path& dir) {
  models::save_adapter(*m.model, dir, m.base);
  write_own_template(m, dir);
}

void write_merged(const RunModel& m, const fs::path& dir, std::optional<Dtype> dtype) {
  models::save_merged(*m.model, dir, {.dtype = dtype, .source = m.base});
  write_own_template(m, dir);
  if (!present(dir / "tokenizer_config.json") && !present(dir / "tokenizer.json")) save_tokenizer(*m.tokenizer, dir, m.model->context());
}

RunModel load_run_model(const fs::path& path, const models::LoadOptions& options) {
  if (!present(path))
    fail("model", fmt::format("{}: nothing of that name is there", path.native()),
         "give a run directory, a GGUF file, or a directory with model.safetensors and config.json");
  if (!fs::is_directory(path)) {
    refuse_adapter_file(path);
    return {models::load_pretrained(path, options), load_tokenizer(path), path, path, path};
  }
  if (present(path / "manifest.json")) return from_checkpoint(path, options);
  if (models::is_adapter(path)) return from_adapter(path, options);
  if (holds_weights(path)) return {models::load_pretrained(path, options), model_tokenizer(path), path, path, path};
  if (const fs::path inside = path / "model"; holds_weights(inside) || models::is_adapter(inside)) return load_run_model(inside, options);
  const auto steps = checkpoint_steps(path);
  if (steps.empty())
    fail("model", fmt::format("{}: no model.safetensors, no model/ and no checkpoint in it", path.native()),
         present(path / "metrics.jsonl") ? "has the run reached its first checkpoint?"
                                         : "Hugging Face's layout has model.safetensors and config.json; weights in .bin files are not read");
  return from_checkpoint(checkpoint_path(path, steps.back()), options);
}

}  // namespace mezzo::train
