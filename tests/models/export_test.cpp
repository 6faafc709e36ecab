// export_test.cpp - adapters and whole models written for others and read back.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <functional>

#include <nlohmann/json.hpp>

#include <mezzo/mezzo.h>

#include "io/gguf.h"
#include "io/json.h"
#include "io/support.h"
#include "models/export.h"
#include "models/model_file.h"

using namespace mezzo;
using namespace mezzo::test;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kVocab = 40;
const char* const kFamilies[] = {"llama:layers=2,heads=4,kv_heads=2,width=64,ffn=96,vocab=40,context=32",
                                 "llama:layers=2,heads=4,kv_heads=2,width=64,ffn=96,vocab=40,context=32,tied=0,qkv_bias=1",
                                 "llama:layers=2,heads=4,width=64,ffn=96,vocab=40,context=32,head_dim=32,qk_norm=1",
                                 "gpt:layers=2,heads=4,width=64,vocab=40,context=32"};

/// Of a family, with every parameter away from its usual first value.
std::shared_ptr<models::LanguageModel> random_model(const models::ModelOptions& options) {
  manual_seed(11);
  auto model = models::make_model(options);
  const autograd::NoGrad off;
  for (auto& w : model->parameters()) copy_(w, w.dim() == 2 ? w * 8.0 : add(w, mul(randn(w.shape()), 0.2)));
  return model;
}
std::shared_ptr<models::LanguageModel> small(const char* spec = kFamilies[0]) { return random_model(models::model_from_spec(spec)); }

/// Adapters whose B is not zero.
void adapt(models::LanguageModel& model, const models::LoraOptions& o = {.rank = 4, .alpha = 8}) {
  models::add_lora(model, o);
  const autograd::NoGrad off;
  for (auto& [path, w] : models::trainable_parameters(model)) copy_(w, mul(randn(w.shape()), 0.1));
}

Tensor ids() {
  Generator random(5);
  std::vector<std::int32_t> v(2 * 20);
  for (auto& id : v) id = static_cast<std::int32_t>(random.below(kVocab));
  return from_span(std::span<const std::int32_t>(v), {2, 20});
}
std::vector<float> logits(models::LanguageModel& model) {
  const autograd::NoGrad off;
  return model.forward(ids()).to_vector();
}
double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double d = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    d += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    n += std::pow(static_cast<double>(b[i]), 2);
  }
  const double r = std::sqrt(d / n);
  return std::isnan(r) ? INFINITY : r;
}

}  // namespace

TEST_CASE("GGUF: every family in f32 comes back bit for bit; other types within their rounding") {
  const TempDir dir;
  for (const char* spec : kFamilies) {
    CAPTURE(std::string(spec));
    const auto model = small(spec);
    const auto wanted = logits(*model);
    const auto back = [&](io::Encoding type) {
      models::save_gguf(*model, dir / "m.gguf", {.type = type});
      return logits(*models::load_pretrained(dir / "m.gguf"));
    };
    CHECK(back(f32) == wanted);
    // Independent errors of each weight: those of a row's products add as squares, so the logits' are of the size of the weights' own, which are
    // uniform within half a step: eps / 2 / sqrt(3) of 16 bits at most, and for blocks a share of the largest of 32 (about 2.2 sigma): 2.2 / 127 /
    // sqrt(12), 2.2 / 8 / sqrt(12) sigma. Through 2 blocks of 4 products in a row: sqrt(8) of that, and twice as much for what norms and softmax make
    // of it.
    const auto within = [](double unit) { return 2 * std::sqrt(8.0) * unit; };
    const double f16_error = relative_difference(back(f16), wanted), q8_error = relative_difference(back(kernels::Format::q8_0), wanted);
    const double q4_error = relative_difference(back(kernels::Format::q4_0), wanted);
    MESSAGE("f16 " << f16_error << ", q8_0 " << q8_error << ", q4_0 " << q4_error);
    CHECK(f16_error < within(format_info(f16).epsilon / 2 / std::sqrt(3.0)));
    CHECK(q8_error < within(2.2 / 127 / std::sqrt(12.0)));
    CHECK(q4_error < within(2.2 / 8 / std::sqrt(12.0)));
    CHECK(q4_error > 4 * q8_error);  // it is written as asked
    CHECK(q8_error > 4 * f16_error);
  }
}

TEST_CASE("GGUF: stretched rotary positions, there and from there into config.json") {
  const TempDir dir;
  auto options = std::get<models::LlamaOptions>(models::model_from_spec(kFamilies[0]));
  for (const auto kind : {models::RopeScaling::Kind::llama3, models::RopeScaling::Kind::linear}) {
    options.rope_scaling = {.kind = kind, .factor = 8, .original_context = 8192};
    const auto model = random_model(options);
    const auto wanted = logits(*model);
    models::save_gguf(*model, dir / "m.gguf", {.type = f32});
    const auto read = models::load_pretrained(dir / "m.gguf");
    CHECK(relative_difference(logits(*read), wanted) < 1e-6);
    models::save_pretrained(*read, dir / "hf");
    CHECK(relative_difference(logits(*models::load_pretrained(dir / "hf")), wanted) < 1e-6);
  }
  options.rope_scaling = {.kind = models::RopeScaling::Kind::factors, .factors = {1, 9, 1, 3, 1, 1, 1, 2}};
  CHECK(contains(error_of([&] { models::save_pretrained(*random_model(options), dir / "odd"); }), "follow no rule"));
}

TEST_CASE("adapters: PEFT's names, and the same model when they are read") {
  const TempDir dir;
  const auto model = small();
  adapt(*model, {.rank = 4, .alpha = 8, .dropout = 0.1, .rslora = true, .targets = {"q_proj", "down_proj"}});
  model->eval();
  models::save_adapter(*model, dir / "adapter", "base");
  std::vector<std::string> names;
  for (const auto& [name, t] : load(dir / "adapter/adapter_model.safetensors")) names.push_back(name);
  CHECK(names.size() == 2 * 2 * 2);
  CHECK(std::count(names.begin(), names.end(), "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight") == 1);
  const io::Json config = io::read_json(dir / "adapter/adapter_config.json");
  CHECK(config["peft_type"] == "LORA");
  CHECK(config["r"] == 4);
  CHECK(config["use_rslora"] == true);
  CHECK(config["base_model_name_or_path"] == "base");

  for (const bool gguf : {false, true}) {
    const auto again = small();
    if (gguf) models::save_adapter_gguf(*model, dir / "adapter.gguf");
    models::load_adapter(*again, dir / (gguf ? "adapter.gguf" : "adapter"));
    again->eval();
    if (gguf) CHECK(relative_difference(logits(*again), logits(*model)) < 1e-6);  // its scale is another number
    else CHECK(logits(*again) == logits(*model));
    CHECK(models::lora_options(*again)->targets == std::vector<std::string>{"down_proj", "q_proj"});
  }
}

TEST_CASE("adapters of a GPT-2: PEFT's names for its Conv1D layers, llama.cpp's in GGUF, and the same model when they are read") {
  const TempDir dir;
  const auto model = small(kFamilies[3]);
  adapt(*model, {.rank = 4, .alpha = 8, .targets = {"c_attn", "mlp.c_proj"}});
  const auto wanted = logits(*model);
  models::save_adapter(*model, dir / "a", "base");
  models::save_adapter_gguf(*model, dir / "a.gguf");
  const StateDict saved = load(dir / "a/adapter_model.safetensors");
  const auto shape = [&](const std::string& name) {
    for (const auto& [key, t] : saved)
      if (key == "base_model.model.transformer.h." + name + ".weight") return t.shape();
    return Shape();
  };
  CHECK(saved.size() == 2 * 2 * 2);
  CHECK(shape("0.attn.c_attn.lora_A") == Shape{4, 64});  // (r, in) and (out, r), though the weight beside them is (in, out)
  CHECK(shape("0.attn.c_attn.lora_B") == Shape{192, 4});
  CHECK(shape("1.mlp.c_proj.lora_A") == Shape{4, 256});
  CHECK(shape("1.mlp.c_proj.lora_B") == Shape{64, 4});
  const fs::path config = dir / "a/adapter_config.json";
  CHECK(io::read_json(config)["fan_in_fan_out"] == true);
  CHECK(io::read_json(config)["target_modules"] == io::Json({"c_attn", "mlp.c_proj"}));
  const io::GgufFile gguf(dir / "a.gguf");
  CHECK(gguf.string("general.architecture") == "gpt2");
  REQUIRE(gguf.tensor("blk.1.attn_qkv.weight.lora_a") != nullptr);
  REQUIRE(gguf.tensor("blk.1.ffn_down.weight.lora_b") != nullptr);
  CHECK(gguf.tensor("blk.1.attn_qkv.weight.lora_a")->shape == std::vector<std::int64_t>{4, 64});
  CHECK(gguf.tensor("blk.1.ffn_down.weight.lora_b")->shape == std::vector<std::int64_t>{64, 4});

  const auto back = [&](const char* path, const char* spec = kFamilies[3]) {
    const auto again = small(spec);
    models::load_adapter(*again, dir / path);
    CHECK(models::lora_options(*again)->targets == std::vector<std::string>{"c_attn", "mlp.c_proj"});
    return logits(*again);
  };
  CHECK(back("a") == wanted);
  CHECK(relative_difference(back("a.gguf"), wanted) < 1e-6);  // its scale is another number
  // As PEFT names them beside a model without a head, and with the flag that it corrects by itself.
  StateDict headless = saved;
  for (auto& [name, t] : headless) name.erase(name.find("transformer."), std::string_view("transformer.").size());
  save(headless, dir / "a/adapter_model.safetensors");
  io::Json changed = io::read_json(config);
  changed["fan_in_fan_out"] = false;
  io::write_json(config, changed);
  CHECK(back("a") == wanted);
  CHECK(contains(error_of([&] { back("a", "gpt:layers=1,heads=4,width=64,vocab=40,context=32"); }), "no layer `h.1.attn.c_attn`"));
  CHECK(contains(error_of([&] { back("a", kFamilies[0]); }), "no layer is called `c_attn`"));
}

TEST_CASE("a GPT-2's dropout can be another than its file's, which is written on; its norms have the eps that files name") {
  const TempDir dir;
  const auto model = small("gpt:layers=2,heads=4,width=64,vocab=40,context=32,dropout=0.1");
  models::save_pretrained(*model, dir / "hf");
  model->eval();
  const auto wanted = logits(*model);
  const auto training = [&](std::optional<double> dropout) { return models::load_pretrained(dir / "hf", {.dropout = dropout}); };
  CHECK(logits(*training({})) != wanted);
  CHECK(logits(*training(0.2)) != wanted);
  const auto without = training(0);
  CHECK(logits(*without) == wanted);
  models::save_pretrained(*without, dir / "again");
  CHECK(slurp(dir / "again/config.json") == slurp(dir / "hf/config.json"));
  CHECK(contains(error_of([&] { training(1); }), "dropout 1 given"));
  models::save_pretrained(*small(), dir / "llama");
  CHECK_NOTHROW(models::load_pretrained(dir / "llama", {.dropout = 0}));
  CHECK(contains(error_of([&] { models::load_pretrained(dir / "llama", {.dropout = 0.1}); }), "dropout 0.1 given, and a Llama has none"));

  models::save_gguf(*model, dir / "m.gguf", {.type = f32});
  const io::GgufFile file(dir / "m.gguf");
  io::GgufMetadata metadata;
  for (const auto& f : file.fields())
    if (f.key != "general.alignment") metadata.put(f);
  metadata.put("gpt2.attention.layer_norm_epsilon", 1e-6f);
  io::write_gguf(dir / "other.gguf", metadata, file.tensors());
  CHECK(contains(error_of([&] { models::load_pretrained(dir / "other.gguf"); }), "attention.layer_norm_epsilon is 1e-06, 1e-05 wanted"));
}

TEST_CASE("adapters merged: the whole model, in f32 within the rounding of a sum") {
  const TempDir dir;
  for (const char* spec : {kFamilies[0], kFamilies[1], kFamilies[3]}) {
    const auto model = small(spec);
    adapt(*model);
    const auto wanted = logits(*model);
    models::save_merged(*model, dir / "merged", {});
    models::save_gguf(*model, dir / "merged.gguf", {.type = f32});
    CHECK(relative_difference(logits(*models::load_pretrained(dir / "merged")), wanted) < 1e-5);
    CHECK(logits(*models::load_pretrained(dir / "merged.gguf")) == logits(*models::load_pretrained(dir / "merged")));
    models::save_merged(*model, dir / "half", {.dtype = bf16});
    CHECK(io::read_json(dir / "half/config.json")["torch_dtype"] == "bfloat16");
    CHECK(load(dir / "half/model.safetensors").front().second.dtype() == bf16);
  }
}

TEST_CASE("adapters on blocks: merged out of them") {
  const TempDir dir;
  for (const char* spec : {kFamilies[0], kFamilies[3]}) {
    models::save_gguf(*small(spec), dir / "base.gguf", {.type = kernels::Format::q8_0});
    const auto model = models::load_pretrained(dir / "base.gguf", {.keep_blocks = true});
    manual_seed(4);
    adapt(*model);
    models::save_merged(*model, dir / "merged", {.dtype = f32});
    CHECK(relative_difference(logits(*models::load_pretrained(dir / "merged")), logits(*model)) < 1e-5);
  }
}

TEST_CASE("adapters that do not fit are refused by name") {
  const TempDir dir;
  const auto model = small();
  CHECK(contains(error_of([&] { models::save_adapter(*model, dir / "none", ""); }), "no adapters"));
  adapt(*model);
  models::save_adapter(*model, dir / "a", "base");
  const auto error = [&](const io::Json& change, const char* spec = kFamilies[0]) {
    io::Json config = io::read_json(dir / "a/adapter_config.json");
    config.update(change);
    fs::create_directories(dir / "b");
    fs::copy_file(dir / "a/adapter_model.safetensors", dir / "b/adapter_model.safetensors", fs::copy_options::overwrite_existing);
    io::write_json(dir / "b/adapter_config.json", config);
    return error_of([&] { models::load_adapter(*small(spec), dir / "b"); });
  };
  CHECK(error(io::Json::object()) == "no error");
  CHECK(contains(error({{"use_dora", true}}), "use_dora is true"));
  CHECK(contains(error({{"fan_in_fan_out", true}}), "fan_in_fan_out is true"));
  CHECK(contains(error({{"rank_pattern", {{"q_proj", 8}}}}), "rank_pattern"));
  CHECK(contains(error({{"r", 8}}), "(4, 96), (8, 96) wanted"));
  CHECK(contains(error(io::Json::object(), "llama:layers=1,heads=4,kv_heads=2,width=64,ffn=96,vocab=40,context=32"), "no layer `model.layers.1"));
  CHECK(contains(error(io::Json::object(), "llama:layers=3,heads=4,kv_heads=2,width=64,ffn=96,vocab=40,context=32"), "model.layers.2"));
  CHECK(contains(error_of([&] { models::adapter_base(dir / "a"); }), "`base` is not there"));
}
