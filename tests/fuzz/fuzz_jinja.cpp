// fuzz_jinja.cpp - whatever the template is: an Error, or a text within its bounds and marks that lie in it.
#include <cstdint>
#include <cstdlib>

#include <mezzo/error.h>
#include <nlohmann/json.hpp>

#include "text/jinja.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

const mezzo::io::Json kVariables = mezzo::io::Json::parse(R"({
  "messages": [{"role": "system", "content": " S "}, {"role": "user", "content": "a\u00e9\n<x>"},
               {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5, null, true]}}}]}],
  "tools": null, "add_generation_prompt": true, "bos_token": "<s>", "n": 3, "d": {"k": "v", "a": [3, 1, 2]}})");

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t kOutput = 1 << 16;
  try {
    const mezzo::text::JinjaTemplate jinja(std::string_view(reinterpret_cast<const char*>(data), size));
    const auto result = jinja.render(kVariables, {.now = 1'000'000'000, .limits = {.output = kOutput, .work = 1 << 21}});
    require(static_cast<std::int64_t>(result.text.size()) <= kOutput);
    require(result.generation.empty() || jinja.marks_generation());
    std::int64_t at = 0;
    for (const auto [begin, end] : result.generation) {
      require(at <= begin && begin <= end && end <= static_cast<std::int64_t>(result.text.size()));
      at = end;
    }
  } catch (const mezzo::Error&) {}
  return 0;
}
