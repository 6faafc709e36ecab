// spec.cpp - models as text: "gpt:layers=6,heads=6,width=384", "llama:...", and presets.
#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <optional>

#include <mezzo/models.h>
#include <mezzo/random.h>

#include "core/dry_run.h"
#include "core/fail.h"
#include "models/maker.h"

namespace mezzo::models {
namespace {

template <class T> T number(std::string_view key, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= std::numeric_limits<T>::max()))
    fail("model", fmt::format("{}={} given, a number of at least 0 wanted", key, text));
  return value;
}

/// A key of a family's specs, and where its value goes.
struct Key {
  std::string_view name;
  std::function<void(std::string_view)> set;
};
template <class T> Key key(std::string_view name, T& place) {
  return {name, [name, &place](std::string_view text) { place = number<T>(name, text); }};
}
template <class O> std::vector<Key> shape_keys(O& o) {
  return {key("layers", o.layers), key("heads", o.heads), key("width", o.width), key("vocab", o.vocab), key("context", o.context)};
}
std::vector<Key> keys(GptOptions& o) {
  auto k = shape_keys(o);
  k.push_back(key("dropout", o.dropout));
  return k;
}
std::vector<Key> keys(LlamaOptions& o) {
  auto k = shape_keys(o);
  for (auto& more :
       {key("kv_heads", o.kv_heads), key("ffn", o.ffn), key("head_dim", o.head_dim), key("rope_base", o.rope_base), key("norm_eps", o.norm_eps)})
    k.push_back(more);
  for (auto [name, place] : {std::pair("tied", &o.tied), std::pair("qkv_bias", &o.qkv_bias), std::pair("qk_norm", &o.qk_norm)})
    k.push_back({name, [name = name, place = place](std::string_view text) { *place = number<int>(name, text) != 0; }});
  return k;
}

/// Applies "key=value,key=value".
void set_keys(std::string_view rest, const std::vector<Key>& known) {
  std::vector<std::string_view> given;
  while (!rest.empty()) {
    const auto comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
    const auto equals = item.find('=');
    if (equals == item.npos) fail("model", fmt::format("`{}` given, key=value wanted", item), "as in gpt:layers=6,heads=6,width=384");
    const auto name = item.substr(0, equals);
    const auto found = std::find_if(known.begin(), known.end(), [&](const Key& k) { return k.name == name; });
    if (std::find(given.begin(), given.end(), name) != given.end()) fail("model", fmt::format("{}= given twice, once wanted", name));
    given.push_back(name);
    if (found != known.end()) {
      found->set(item.substr(equals + 1));
      continue;
    }
    std::vector<std::string_view> names;
    std::string list;
    for (const auto& k : known) {
      names.push_back(k.name);
      list += fmt::format("{}{}", list.empty() ? "" : ", ", k.name);
    }
    fail("model", fmt::format("unknown key `{}`, one of {} wanted", name, list), near_names(name, names));
  }
}

void check(const GptOptions& o) {
  check_sizes("model", o);
  if (o.width % o.heads != 0) fail("model", fmt::format("width {} given, a multiple of its {} heads wanted", o.width, o.heads));
  if (!(o.dropout >= 0 && o.dropout < 1)) fail("model", fmt::format("dropout {} given, a number of at least 0 and below 1 wanted", o.dropout));
}
void check(const LlamaOptions& o) {
  check_sizes("model", o);
  if (o.head_dim == 0 && o.width % o.heads != 0)
    fail("model", fmt::format("width {} given, a multiple of its {} heads wanted", o.width, o.heads), "or give head_dim=");
  const auto dim = o.head_dim ? o.head_dim : o.width / o.heads;
  if (dim % 2 != 0) fail("model", fmt::format("heads of size {} given, an even size wanted: rotary positions turn pairs", dim));
  if (o.rope_base == 0) fail("model", "rope_base 0 given, a base above 0 wanted, as 10000");
  if (o.kv_heads != 0 && o.heads % o.kv_heads != 0)
    fail("model", fmt::format("kv_heads={} for {} heads given, a divisor wanted", o.kv_heads, o.heads));
}

}  // namespace

ModelOptions model_from_spec(const std::string& spec, SpecDefaults defaults) {
  const std::string_view s = spec;
  const auto colon = s.find(':');
  const std::string_view start = s.substr(0, colon), rest = colon == s.npos ? std::string_view() : s.substr(colon + 1);
  std::optional<GptOptions> gpt;
  std::optional<LlamaOptions> llama;
  if (start == "gpt") gpt = GptOptions{.vocab = defaults.vocab, .context = defaults.context};
  if (start == "gpt2-124m") gpt = GptOptions{.vocab = 50257, .context = 1024, .layers = 12, .heads = 12, .width = 768};
  if (start == "llama") llama = LlamaOptions{.vocab = defaults.vocab, .context = defaults.context};
  if (start == "smollm2-135m")
    llama = LlamaOptions{.vocab = 49152, .context = 8192, .layers = 30, .heads = 9, .kv_heads = 3, .width = 576, .ffn = 1536, .rope_base = 1e5};
  if (gpt) {
    set_keys(rest, keys(*gpt));
    check(*gpt);
    return *gpt;
  }
  if (llama) {
    set_keys(rest, keys(*llama));
    check(*llama);
    return *llama;
  }
  constexpr std::array<std::string_view, 4> kKnown{"gpt", "gpt2-124m", "llama", "smollm2-135m"};
  fail("model", fmt::format("`{}` given, gpt:layers=,heads=,width=, llama:... or a preset (gpt2-124m, smollm2-135m) wanted", spec),
       near_names(start, kKnown));
}

std::string to_spec(const ModelOptions& m) {
  const auto shape = [](const auto& o) {
    return fmt::format("layers={},heads={},width={},vocab={},context={}", o.layers, o.heads, o.width, o.vocab, o.context);
  };
  if (const auto* g = std::get_if<GptOptions>(&m)) {
    std::string s = "gpt:" + shape(*g);
    if (g->dropout > 0) s += fmt::format(",dropout={}", g->dropout);
    return s;
  }
  const auto& o = std::get<LlamaOptions>(m);
  const LlamaOptions plain;
  std::string s = "llama:" + shape(o);
  const auto put = [&](std::string_view name, auto value, auto usual) {
    if (value != usual) s += fmt::format(",{}={}", name, value);
  };
  put("kv_heads", o.kv_heads, plain.kv_heads);
  put("ffn", o.ffn, plain.ffn);
  put("head_dim", o.head_dim, plain.head_dim);
  put("rope_base", o.rope_base, plain.rope_base);
  put("norm_eps", o.norm_eps, plain.norm_eps);
  put("tied", int{o.tied}, int{plain.tied});
  put("qkv_bias", int{o.qkv_bias}, int{plain.qkv_bias});
  put("qk_norm", int{o.qk_norm}, int{plain.qk_norm});
  return s;
}

const char* family(const ModelOptions& m) { return std::holds_alternative<GptOptions>(m) ? "gpt" : "llama"; }
std::int64_t vocab(const ModelOptions& m) {
  return std::visit([](const auto& o) { return o.vocab; }, m);
}
std::int64_t context(const ModelOptions& m) {
  return std::visit([](const auto& o) { return o.context; }, m);
}

std::int64_t width(const ModelOptions& m) {
  return std::visit([](const auto& o) { return o.width; }, m);
}

std::shared_ptr<LanguageModel> make_model(const ModelOptions& m) {
  if (const auto* g = std::get_if<GptOptions>(&m)) return std::make_shared<Gpt>(*g);
  return std::make_shared<Llama>(std::get<LlamaOptions>(m));
}

std::int64_t parameter_count(const ModelOptions& m) {
  const Generator before = default_generator();
  std::int64_t n = 0;
  {
    const DryRun dry;
    for (const auto& w : make_model(m)->parameters()) n += w.numel();
  }
  default_generator() = before;
  return n;
}

}  // namespace mezzo::models
