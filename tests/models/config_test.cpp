// config_test.cpp - config.json: what it says is read or refused, never bent.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <mezzo/error.h>

#include "io/json.h"
#include "models/model_file.h"

using namespace mezzo;
using namespace mezzo::models;

namespace {

io::Json llama() {
  return io::parse_json(R"({"model_type": "llama", "vocab_size": 64, "max_position_embeddings": 128, "hidden_size": 32, "intermediate_size": 96,
                            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "rope_scaling": null})",
                        "text");
}

/// The message for a config with one member changed; empty: it is taken.
std::string refusal(const char* key, io::Json value) {
  io::Json config = llama();
  config[key] = std::move(value);
  try {
    options_from_config(config, "config.json");
    return {};
  } catch (const Error& e) { return e.what(); }
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("config.json: null is as good as missing, and what is missing has transformers' default") {
  const auto o = std::get<LlamaOptions>(options_from_config(llama(), "config.json"));
  CHECK(o.kv_heads == 2);
  CHECK(o.rope_scaling.kind == RopeScaling::Kind::none);
  CHECK(o.norm_eps == 1e-6);
  CHECK(o.rope_base == 10000);
  CHECK_FALSE(o.tied);
  io::Json config = llama();
  config["num_key_value_heads"] = nullptr;
  CHECK(std::get<LlamaOptions>(options_from_config(config, "config.json")).kv_heads == 4);
}

TEST_CASE("config.json: a count that is none, or that an int does not hold, is refused by name") {
  for (const char* count : {"vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads"}) {
    CAPTURE(count);
    for (const io::Json& value : {io::Json(0), io::Json(-3), io::Json(2.5), io::Json(1e300), io::Json("2"), io::Json::array()}) {
      CAPTURE(value.dump());
      CHECK(contains(refusal(count, value), std::string("config.json: ") + count + " is "));
    }
  }
  CHECK(contains(refusal("num_hidden_layers", (std::int64_t{1} << 32) + 2), "num_hidden_layers is 4294967298"));
  CHECK(contains(refusal("hidden_size", nullptr), "hidden_size is missing"));
}

TEST_CASE("config.json: other settings of a wrong type or an unknown value are refused by name") {
  CHECK(contains(refusal("rms_norm_eps", "small"), "rms_norm_eps is"));
  CHECK(contains(refusal("tie_word_embeddings", 1), "tie_word_embeddings is 1, true or false wanted"));
  CHECK(contains(refusal("hidden_act", "gelu"), "hidden_act is gelu"));
  CHECK(contains(refusal("hidden_act", 3), "hidden_act is 3, a text wanted"));
  CHECK(contains(refusal("attention_bias", true), "attention_bias"));
  CHECK(contains(refusal("model_type", "mamba"), "mamba"));
  CHECK(contains(refusal("model_type", 7), "model_type is 7"));
  CHECK(contains(refusal("rope_scaling", "linear"), "rope_scaling is"));
  CHECK(contains(refusal("rope_scaling", {{"type", 7}}), "rope_scaling.type is 7"));
  CHECK(contains(refusal("rope_scaling", {{"rope_type", "yarn"}}), "yarn"));
  CHECK(contains(refusal("rope_scaling", {{"rope_type", "linear"}, {"factor", "two"}}), "rope_scaling.factor is"));
  CHECK_THROWS_WITH_AS(options_from_config(io::Json::array(), "config.json"), doctest::Contains("array given, an object wanted"), Error);
}

TEST_CASE("config.json: weights in another library's blocks are refused before they are looked for") {
  const auto refused = refusal("quantization_config", {{"quant_method", "gptq"}, {"bits", 4}});
  CHECK(contains(refused, "config.json: its weights are quantized (gptq), which is read of GGUF files only"));
  CHECK(contains(refused, "a GGUF file of it"));
  CHECK(contains(refusal("quantization_config", io::Json::object()), "(quantization_config)"));
  CHECK(contains(refusal("quantization_config", 4), "quantization_config is 4, an object wanted"));
  CHECK(refusal("quantization_config", nullptr).empty());
}

TEST_CASE("config.json: rope_parameters, as transformers 5 writes it, is rope_theta and rope_scaling in one") {
  const auto with = [](const char* key, io::Json value) {
    io::Json config = llama();
    config[key] = std::move(value);
    return std::get<LlamaOptions>(options_from_config(config, "config.json"));
  };
  CHECK(with("rope_theta", 5e5).rope_base == 5e5);
  CHECK(with("rope_parameters", {{"rope_theta", 5e5}}).rope_base == 5e5);
  const auto plain = with("rope_parameters", {{"rope_theta", 1e5}, {"rope_type", "default"}});
  CHECK(plain.rope_base == 1e5);
  CHECK(plain.rope_scaling.kind == RopeScaling::Kind::none);
  const auto scaled = with("rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "llama3"}, {"factor", 32}});
  CHECK(scaled.rope_base == 5e5);
  CHECK(scaled.rope_scaling.kind == RopeScaling::Kind::llama3);
  CHECK(scaled.rope_scaling.factor == 32);
  CHECK(contains(refusal("rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "yarn"}}), "rope_parameters is of type `yarn`"));
  CHECK(contains(refusal("rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}), "rope_parameters is of type ``"));
  CHECK(contains(refusal("partial_rotary_factor", 0.5), "partial_rotary_factor is 0.5, 1 wanted"));
  CHECK(contains(refusal("rope_parameters", {{"rope_theta", 1e4}, {"partial_rotary_factor", 0.5}}), "rope_parameters.partial_rotary_factor is 0.5"));
}

TEST_CASE("config.json: a sliding window below the context shortens it") {
  const auto context = [](const char* type, io::Json changes) {
    io::Json config = llama();
    config["model_type"] = type;
    config.update(changes);
    return std::get<LlamaOptions>(options_from_config(config, "config.json")).context;
  };
  CHECK(context("mistral", {{"sliding_window", 32u}}) == 32);
  CHECK(context("mistral", {{"sliding_window", 4096u}}) == 128);
  CHECK(context("mistral", {{"sliding_window", nullptr}}) == 128);
  CHECK(context("qwen2", {{"sliding_window", 32u}, {"use_sliding_window", true}}) == 32);
  CHECK(context("qwen2", {{"sliding_window", 32u}, {"use_sliding_window", false}}) == 128);
  CHECK(context("llama", {{"sliding_window", 32u}}) == 128);  // which transformers does not read
}

TEST_CASE("config.json: GPT-2 in a form that is not computed here is refused by name") {
  const auto refused = [](const char* key, io::Json value) {
    io::Json config =
        io::parse_json(R"({"model_type": "gpt2", "vocab_size": 64, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2})", "text");
    if (key) config[key] = std::move(value);
    try {
      options_from_config(config, "config.json");
      return std::string();
    } catch (const Error& e) { return std::string(e.what()); }
  };
  CHECK(refused(nullptr, nullptr).empty());
  CHECK(refused("activation_function", "gelu_new").empty());
  CHECK(refused("layer_norm_epsilon", 1e-5).empty());
  CHECK(contains(refused("activation_function", "relu"), "activation_function is \"relu\", gelu_new wanted"));
  CHECK(contains(refused("layer_norm_epsilon", 1e-6), "layer_norm_epsilon is"));
  CHECK(contains(refused("scale_attn_weights", false), "scale_attn_weights is false, true wanted"));
  CHECK(contains(refused("scale_attn_by_inverse_layer_idx", true), "scale_attn_by_inverse_layer_idx is true"));
  CHECK(contains(refused("tie_word_embeddings", false), "tie_word_embeddings is false"));
}
