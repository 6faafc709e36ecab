// models.h - what commands that take a --model say of it and load it as.
#pragma once

#include <string>

#include <fmt/format.h>

#include <mezzo/models.h>
#include <mezzo/train.h>

namespace mezzo::cli {

inline constexpr const char* kModelHelp = "A run directory, a GGUF file, or a directory in Hugging Face's layout or with an adapter in PEFT's";

/// The help of --precision where a model is only asked, for which a recipe is the dtype it computes in.
inline std::string asked_precisions() { return fmt::format("auto, {}: what it computes in", fmt::join(train::recipe_names(), ", ")); }

/// For a model that is only asked: matrices in the dtype that the recipe computes in, those in blocks left where they are.
inline models::LoadOptions for_inference(const train::Recipe& recipe) {
  return {.dtype = recipe.autocast ? recipe.low : Dtype::f32, .keep_blocks = true, .keep_table = true};
}

}  // namespace mezzo::cli
