// run_model.h - models that programs are given by a path: of a run, of a checkpoint, of Hugging Face's layout, of a GGUF file, with an adapter.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>

#include <mezzo/models.h>
#include <mezzo/text.h>
#include <mezzo/train.h>

namespace mezzo::train {

struct RunModel {
  std::shared_ptr<models::LanguageModel> model;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::filesystem::path source;  ///< what the path came to: a model directory, a checkpoint, a GGUF file, an adapter's directory
  std::filesystem::path base;    ///< where the tokenizer lies: of an adapter its base model, else source
  std::filesystem::path chat;    ///< where the chat template lies: with the adapter or the run that has one of its own, else base
};
/// Whether a directory has weights in Hugging Face's layout, whole or in parts.
bool holds_weights(const std::filesystem::path& dir);
/// `path`: a run directory (its model/, or else its newest checkpoint), a checkpoint, a directory in Hugging Face's layout, a GGUF file, or a
/// directory with an adapter in PEFT's layout, whose base is loaded as `options` say. Error that says what is there instead, or what is wrong with
/// it.
RunModel load_run_model(const std::filesystem::path&, const models::LoadOptions& options = {});
/// The recipe to ask the model at `path` under. "auto" is fp32 where its matrices lie in blocks: a product with one token unpacks them into f32 in
/// any case, so 16 bits would round for nothing; else as recipe() says.
Recipe recipe_for_asking(std::string_view precision, const std::filesystem::path& path);
/// The model as a directory in Hugging Face's layout with all that its base says of tokens, adapters merged, in `dtype` (unset: as it is).
void write_merged(const RunModel&, const std::filesystem::path& dir, std::optional<Dtype> dtype);
/// The adapters alone, in PEFT's layout, with a chat template that is not the base's.
void write_adapter(const RunModel&, const std::filesystem::path& dir);
/// Writes a model directory: Hugging Face's layout, the tokenizer with it.
void write_model(const models::LanguageModel&, const Tokenizer&, const std::filesystem::path& dir);

}  // namespace mezzo::train
