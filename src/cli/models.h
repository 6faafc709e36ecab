// models.h - what commands that take a --model say of it and load it as.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/ranges.h>

#include <mezzo/models.h>
#include <mezzo/train.h>

#include "core/fail.h"

namespace mezzo::cli {

inline constexpr const char* kModelHelp = "A run directory, a GGUF file, or a directory in Hugging Face's layout or with an adapter in PEFT's";

/// A recipe says of weights that are trained how they are stored, too: asked are those that differ in what is computed.
inline constexpr std::array<std::string_view, 4> kAsked{"auto", "fp32", "bf16", "fp16"};
inline train::Recipe asked_recipe(std::string_view op, std::string_view precision) {
  if (std::find(kAsked.begin(), kAsked.end(), precision) == kAsked.end())
    fail(op, fmt::format("--precision {} given, one of {} wanted", precision, fmt::join(kAsked, ", ")), near_names(precision, kAsked));
  return train::recipe(precision);
}

/// For a model that is only asked: matrices in the dtype that the recipe computes in, those in blocks left where they are.
inline models::LoadOptions for_inference(const train::Recipe& recipe) {
  return {.dtype = recipe.autocast ? recipe.low : Dtype::f32, .keep_blocks = true, .keep_table = true};
}

}  // namespace mezzo::cli
