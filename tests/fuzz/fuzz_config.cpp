// fuzz_config.cpp - whatever a config.json says: an Error, or options whose counts are from 1 on.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <nlohmann/json.hpp>

#include <mezzo/error.h>

#include "io/json.h"
#include "models/model_file.h"

namespace {

using namespace mezzo::models;

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const GptOptions& o) {
  require(o.vocab > 0 && o.context > 0 && o.width > 0 && o.layers > 0 && o.heads > 0);
  require(std::isfinite(o.dropout));
}
void check(const LlamaOptions& o) {
  require(o.vocab > 0 && o.context > 0 && o.width > 0 && o.ffn > 0 && o.layers > 0 && o.heads > 0 && o.kv_heads > 0 && o.head_dim >= 0);
  require(std::isfinite(o.norm_eps) && std::isfinite(o.rope_base) && std::isfinite(o.rope_scaling.factor));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto options = options_from_config(mezzo::io::parse_json({reinterpret_cast<const char*>(data), size}, "input"), "input");
    std::visit([](const auto& o) { check(o); }, options);
  } catch (const mezzo::Error&) {}
  return 0;
}
