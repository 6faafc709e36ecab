// fast_language_model.h - an existing language model: loaded, adapted, asked, written. Precision is chosen for you.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <mezzo/models.h>
#include <mezzo/text.h>
#include <mezzo/train.h>

namespace mezzo {

struct PretrainedOptions {
  std::string precision = "auto";  ///< a recipe: what generate() computes in; auto: f32 for matrices in blocks, where 16 bits are no faster
  /// Matrices that a GGUF file holds in blocks stay there: adapters can be trained on them, they themselves cannot.
  bool keep_blocks = true;
  /// "q8_0", "q4_0" or "nf4": the layers' matrices that the file holds element by element are rounded into such blocks, in memory (QLoRA).
  std::string quantize = {};
  double dropout = 0;  ///< of a GPT-2 in training, whatever its file says, as `mezzo finetune --dropout`. Error if above 0 for a Llama
  std::filesystem::path chat_template = {};  ///< a file with a Jinja template, for chat, instead of the model's own; save_*() write it along
};

struct GenerateOptions {
  std::int64_t max_tokens = 200;
  double temperature = 0.8;       ///< 0: the likeliest token
  int top_k = 0;                  ///< only the k likeliest; 0: all
  double top_p = 1;               ///< of these the fewest that hold this share of the probability
  double repetition_penalty = 1;  ///< makes tokens that are there already less likely; 1: does not
  std::uint64_t seed = 0;
  bool chat = false;                                   ///< the prompt is a message, put into the model's chat template
  std::string system = {};                             ///< with chat: what the conversation begins with, instead of the template's own
  std::function<bool(std::string_view)> on_text = {};  ///< sees the text as it comes, always whole code points; false ends it
};

/// A handle: copies are the same model.
class MEZZO_API FastLanguageModel {
 public:
  /// A GGUF file, a directory in Hugging Face's layout, one with an adapter in PEFT's (its base is loaded, and the adapter on it), or a run
  /// directory. Error names what is missing, unknown or does not fit.
  static FastLanguageModel from_pretrained(const std::filesystem::path&, const PretrainedOptions& = {});

  /// Freezes the model and attaches adapters (models::add_lora).
  FastLanguageModel& add_lora(const models::LoraOptions& = {});
  /// Dropout on, the adapters' and the model's. Error if nothing can be trained: a model in blocks without adapters.
  FastLanguageModel& for_training();
  FastLanguageModel& for_inference();  ///< dropout off

  /// What follows `prompt`, up to the end-of-text token; with .chat the answer. Error for an empty prompt, and for chat without a template.
  std::string generate(std::string_view prompt, const GenerateOptions& = {});

  /// The adapters as PEFT loads them: adapter_model.safetensors, and adapter_config.json, which names the base. Error without adapters.
  void save_adapter(const std::filesystem::path& dir) const;
  /// Hugging Face's layout with tokenizer, adapters added to the weights; matrices and vectors in `dtype` (f32, f16, bf16).
  void save_merged(const std::filesystem::path& dir, Dtype dtype = Dtype::f32) const;
  /// A GGUF file with tokenizer and chat template, adapters added; type: "f32", "f16", "bf16", "q8_0", "q4_0".
  void save_gguf(const std::filesystem::path& file, std::string_view type = "f16") const;

  models::LanguageModel& model() const;
  const std::shared_ptr<models::LanguageModel>& shared_model() const;
  const Tokenizer& tokenizer() const;
  const std::filesystem::path& source() const;  ///< where tokenizer and chat template are
  const train::Recipe& recipe() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mezzo
