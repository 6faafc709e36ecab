// spec.cpp - models as text: "gpt:layers=6,heads=6,width=384" and presets.
#include <charconv>

#include <mezzo/models.h>

#include "core/fail.h"

namespace mezzo::models {
namespace {

constexpr std::array<std::string_view, 1> kPresets{"gpt2-124m"};
constexpr std::array<std::string_view, 6> kKeys{"layers", "heads", "width", "vocab", "context", "dropout"};

template <class T> T number(std::string_view key, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) fail("model", fmt::format("{}={} given, a number wanted", key, text));
  return value;
}

}  // namespace

GptOptions gpt_from_spec(const std::string& spec, GptOptions o) {
  const std::string_view s = spec;
  const auto colon = s.find(':');
  const std::string_view family = s.substr(0, colon);
  std::string_view rest = colon == s.npos ? std::string_view() : s.substr(colon + 1);
  if (family == "gpt2-124m") {
    o = {.vocab = 50257, .context = 1024, .layers = 12, .heads = 12, .width = 768, .dropout = o.dropout};
  } else if (family == "llama" || family == "smollm2-135m") {
    fail("model", fmt::format("`{}` given: the Llama family is not in this version", spec), "gpt:layers=6,heads=6,width=384 trains a GPT");
  } else if (family != "gpt") {
    std::vector<std::string_view> known(kPresets.begin(), kPresets.end());
    known.push_back("gpt");
    const std::string near = near_names(family, known);
    fail("model", fmt::format("`{}` given, gpt:layers=,heads=,width= or the preset gpt2-124m wanted", spec), near);
  }
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
    const auto equals = item.find('=');
    if (equals == item.npos) fail("model", fmt::format("`{}` given, key=value wanted", item), "as in gpt:layers=6,heads=6,width=384");
    const auto key = item.substr(0, equals), value = item.substr(equals + 1);
    if (key == "layers") o.layers = number<int>(key, value);
    else if (key == "heads") o.heads = number<int>(key, value);
    else if (key == "width") o.width = number<std::int64_t>(key, value);
    else if (key == "vocab") o.vocab = number<std::int64_t>(key, value);
    else if (key == "context") o.context = number<std::int64_t>(key, value);
    else if (key == "dropout") o.dropout = number<double>(key, value);
    else fail("model", fmt::format("unknown key `{}`, one of layers, heads, width, vocab, context, dropout wanted", key), near_names(key, kKeys));
  }
  return o;
}

std::string to_spec(const GptOptions& o) {
  std::string s = fmt::format("gpt:layers={},heads={},width={},vocab={},context={}", o.layers, o.heads, o.width, o.vocab, o.context);
  if (o.dropout > 0) s += fmt::format(",dropout={}", o.dropout);
  return s;
}

std::int64_t parameter_count(const GptOptions& o) {
  const auto c = o.width;
  const std::int64_t block = 2 * 2 * c + (3 * c * c + 3 * c) + (c * c + c) + (4 * c * c + 4 * c) + (4 * c * c + c);
  return o.vocab * c + o.context * c + o.layers * block + 2 * c;
}

}  // namespace mezzo::models
