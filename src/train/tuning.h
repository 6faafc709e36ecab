// tuning.h - an existing model that is trained further: which, in which dtype, with which adapters; and what is kept of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <mezzo/models.h>
#include <mezzo/text.h>
#include <mezzo/train.h>

#include "text/examples.h"

namespace mezzo::train {

/// What `mezzo finetune` can be told besides TrainOptions. There, `model` is a GGUF file or a directory in Hugging Face's layout, `data` a JSONL file
/// (text/examples.h), `seq` the window, and `val_fraction` a share of the lines.
struct TuneOptions {
  bool full = false;                                  ///< all weights; else adapters beside frozen ones
  models::LoraOptions lora = {};                      ///< the adapters
  double dropout = 0;                                 ///< of the model itself, where it has one (GPT-2), whatever its file says
  std::string quantize_base = {};                     ///< q8_0, q4_0, nf4: frozen matrices that the file has element by element go into such blocks
  std::filesystem::path eval_data = {};               ///< held-out examples; empty: val_fraction of `data`
  bool packing = true;                                ///< examples side by side, without attention across; else padded to the longest
  text::Overlong overlong = text::Overlong::split;    ///< what becomes of examples longer than the window
  text::TrainOn train_on = text::TrainOn::assistant;  ///< which tokens carry loss
  std::filesystem::path chat_template = {};           ///< a Jinja template (or what holds one) instead of the model's own; kTemplateCopy: the run's
  bool skip_bad_lines = false;                        ///< lines that cannot be used are counted; else the first is an Error
  std::int64_t started = 0;                           ///< seconds since 1970 of the run's first start, for templates that write a date; 0: now
};

struct TrainOptions;

/// A run keeps the template that it was given under this name, in its directory and in model/.
inline constexpr const char* kTemplateCopy = "chat_template.jinja";
/// Where the template is: the run's copy, the file that was given, or the model.
std::filesystem::path template_path(const TrainOptions&);

/// Error, named as the command line names it, for what does not go together.
void check(const TuneOptions&);

/// A model file: a GGUF file, a directory in Hugging Face's layout, or a run directory's model/.
std::filesystem::path base_path(const std::filesystem::path& given);
/// Its shape. Error for what is not such a file, or where the window does not fit into its context.
models::ModelOptions base_shape(const TrainOptions&);
/// Its tokenizer. Error if it has more tokens than the model knows.
std::shared_ptr<const Tokenizer> base_tokenizer(const TrainOptions&, const models::ModelOptions&);
/// Of all bytes of its configuration and weights.
std::uint64_t base_fingerprint(const std::filesystem::path& base);

/// The model, ready for training: full in f32 (the optimizer rounds as the recipe says); else frozen, its matrices in the recipe's low dtype or in
/// blocks, and new adapters from the default generator.
std::shared_ptr<models::LanguageModel> load_base(const TrainOptions&, const Recipe&);
/// How load_base() keeps frozen matrices: "bf16", "the file's blocks (Q4_1)", ...; empty where all weights are trained.
std::string frozen_text(const TrainOptions&, const Recipe&);

std::string_view name(text::Overlong);
text::Overlong overlong_from_name(std::string_view);  ///< Error that lists them
std::string_view name(text::TrainOn);
text::TrainOn train_on_from_name(std::string_view);

}  // namespace mezzo::train
