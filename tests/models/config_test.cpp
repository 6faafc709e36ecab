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
