// io.h - tensors in files.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <mezzo/tensor.h>

namespace mezzo {

/// Named tensors in the order they were put in.
using StateDict = std::vector<std::pair<std::string, Tensor>>;

/// Writes a safetensors file, atomically: beside, flushed, renamed. Error names the path and what the system said.
MEZZO_API void save(const StateDict&, const std::filesystem::path&);
/// Reads a safetensors file. Every malformed header, dtype, shape or offset is an Error with path and offset.
MEZZO_API StateDict load(const std::filesystem::path&);

}  // namespace mezzo
