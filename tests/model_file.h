// model_file.h - the real model that `./dev model` puts in place, for the tests that need one.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <doctest/doctest.h>

namespace mezzo::test {

/// SmolLM2-135M-Instruct (Q4_1) as GGUF; none where it is not there, which is said. MEZZO_MODELS names another directory than build/models.
inline std::optional<std::filesystem::path> smollm2_path() {
  const char* folder = std::getenv("MEZZO_MODELS");
  const auto path = std::filesystem::path(folder ? folder : "build/models") / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (std::filesystem::exists(path)) return path;
  MESSAGE("skipped: ", path.native(), " is not there (./dev model gets it)");
  return std::nullopt;
}

}  // namespace mezzo::test
