// llama_test.cpp - Llama, Qwen2 and Qwen3 shapes against Hugging Face's transformers in float64; directories written and read back.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <map>

#include <nlohmann/json.hpp>

#include <mezzo/mezzo.h>

#include "io/safetensors.h"

using namespace mezzo;
namespace fs = std::filesystem;

namespace {

const char* kGolden = "tests/golden/llama.safetensors";

/// A golden case: the model, loaded the way a user loads one, from a directory with config.json and model.safetensors.
struct Case {
  std::shared_ptr<models::LanguageModel> model;
  std::map<std::string, Tensor> expected;
};
Case load_case(const std::string& name) {
  Case c;
  StateDict weights;
  for (auto& [key, t] : load(kGolden)) {
    if (key == "tokens" || key == "targets") c.expected[key] = t;
    if (key.rfind(name + "/", 0) != 0) continue;
    const std::string rest = key.substr(name.size() + 1);
    if (rest.rfind("weight.", 0) == 0) weights.emplace_back(rest.substr(7), t);
    else c.expected[rest] = t;
  }
  const fs::path dir = fs::temp_directory_path() / ("mezzo-test-llama-" + name);
  fs::create_directories(dir);
  save(weights, dir / "model.safetensors");
  const auto configs = nlohmann::json::parse(io::SafetensorsFile(kGolden).metadata().at("configs"));
  std::ofstream(dir / "config.json") << configs.at(name).dump();
  c.model = models::load_pretrained(dir);
  fs::remove_all(dir);
  return c;
}

double relative_error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector(), y = b.to_vector();
  double d = 0, n = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double difference = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    d += difference * difference;
    n += static_cast<double>(y[i]) * static_cast<double>(y[i]);
  }
  const double r = std::sqrt(d / n);
  return std::isnan(r) ? std::numeric_limits<double>::infinity() : r;
}

double worst_gradient(Case& c) {
  double worst = 0;
  for (const auto& [path, t] : c.model->named_parameters()) {
    const std::string name = path;
    CAPTURE(name);
    REQUIRE(t.grad().defined());
    worst = std::max(worst, relative_error(t.grad(), c.expected.at("grad." + name)));
  }
  return worst;
}

}  // namespace

TEST_CASE("Llama, Llama 3 with rope scaling, Qwen2 and Qwen3: logits, loss and every gradient as transformers has them") {
  for (const char* name : {"llama", "llama3_tied", "qwen2", "qwen3"}) {
    CAPTURE(name);
    Case c = load_case(name);
    CHECK(relative_error((*c.model)(c.expected["tokens"]).detach(), c.expected["logits"]) < 1e-5);
    const Tensor loss = c.model->loss(c.expected["tokens"], c.expected["targets"]);
    CHECK(std::fabs(loss.item() - c.expected["loss"].item()) < 1e-5);
    loss.backward();
    const double worst = worst_gradient(c);
    MESSAGE(name << ", f32: largest relative error of a gradient " << worst);
    CHECK(worst < 1e-5);
  }
}

TEST_CASE("Llama in 16 bits: gradients within a few roundings a layer") {
  for (const Dtype dtype : {bf16, f16}) {
    Case c = load_case("llama");
    const Tensor loss = amp::autocast(dtype, [&] { return c.model->loss(c.expected["tokens"], c.expected["targets"]); });
    loss.backward();
    const double eps = format_info(dtype).epsilon, worst = worst_gradient(c);
    MESSAGE(mezzo::name(dtype) << ": largest relative error of a gradient " << worst / eps << " eps");
    // About 14 roundings of eps/2 through each of two blocks and back, as independent errors: sqrt(56) eps/2 = 3.7 eps.
    CHECK(worst < 5 * eps);
    CHECK(worst > eps / 16);
  }
}

TEST_CASE("a directory written and read back is the same model, bit for bit") {
  const Case c = load_case("llama3_tied");
  const fs::path dir = fs::temp_directory_path() / "mezzo-test-llama-again";
  models::save_pretrained(*c.model, dir);
  const auto again = models::load_pretrained(dir);
  CHECK((*again)(c.expected.at("tokens")).to_vector() == (*c.model)(c.expected.at("tokens")).to_vector());
  fs::remove_all(dir);
}

TEST_CASE("an unknown family, activation or rope scaling is named") {
  const fs::path dir = fs::temp_directory_path() / "mezzo-test-llama-bad";
  fs::create_directories(dir);
  const auto error = [&](nlohmann::json change) {
    nlohmann::json config = nlohmann::json::parse(io::SafetensorsFile(kGolden).metadata().at("configs")).at("llama");
    config.update(change);
    std::ofstream(dir / "config.json") << config.dump();
    try {
      models::load_pretrained(dir);
    } catch (const Error& e) { return std::string(e.what()); }
    return std::string();
  };
  const auto names = [](const std::string& text, const char* what) { return text.find(what) != std::string::npos; };
  CHECK(names(error({{"model_type", "mamba"}}), "mamba"));
  CHECK(names(error({{"hidden_act", "relu"}}), "relu"));
  CHECK(names(error({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}}}), "yarn"));
  CHECK(names(error({{"num_attention_heads", "many"}}), "num_attention_heads"));
  fs::remove_all(dir);
}
