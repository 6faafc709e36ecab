// real_model_test.cpp - SmolLM2-135M-Instruct out of its GGUF file against Hugging Face's transformers in float32 (tools/golden/smollm2.py).
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include <nlohmann/json.hpp>

#include <mezzo/mezzo.h>

#include "io/json.h"
#include "io/safetensors.h"
#include "io/support.h"
#include "model_file.h"
#include "models/export.h"
#include "text/chat_template.h"
#include "text/corpus.h"
#include "text/tokenizer_files.h"
#include "train/parity.h"
#include "train/run_model.h"
#include "train/trainer.h"

using namespace mezzo;

namespace {

const char* kGolden = "tests/golden/smollm2.safetensors";
using Ids = std::vector<std::int32_t>;

nlohmann::json golden(const char* key) { return nlohmann::json::parse(io::SafetensorsFile(kGolden).metadata().at(key)); }

Tensor row_of(const Ids& ids) { return from_span(std::span<const std::int32_t>(ids), {1, static_cast<std::int64_t>(ids.size())}); }

}  // namespace

TEST_CASE("SmolLM2: token ids and f32 logits as transformers has them") {
  const auto path = test::smollm2_path();
  if (!path) return;
  const auto dense = models::load_pretrained(*path), in_blocks = models::load_pretrained(*path, {.keep_blocks = true, .keep_table = true});
  const auto tokenizer = load_tokenizer(*path);
  const autograd::NoGrad off;
  for (const auto& [name, wanted] : load(kGolden)) {
    if (name.rfind("logits.", 0) != 0) continue;
    const auto prompt = golden("prompts").at(std::stoul(name.substr(7)));
    const auto ids = prompt.at("ids").get<Ids>();
    CHECK(tokenizer->encode(prompt.at("text").get<std::string>()) == ids);
    const auto want = wanted.to_vector();  // (T, V / 128)
    for (const auto& model : {dense, in_blocks}) {
      const Tensor logits = model->forward(row_of(ids));
      const auto got = logits.to_vector();
      const auto columns = static_cast<std::size_t>(wanted.size(1)), v = static_cast<std::size_t>(logits.size(2)), stride = v / columns;
      double worst = 0;
      for (std::size_t i = 0; i < want.size(); ++i) {
        const double d = std::fabs(static_cast<double>(got[i / columns * v + i % columns * stride]) - static_cast<double>(want[i]));
        worst = std::max(worst, std::isnan(d) ? INFINITY : d);
      }
      CHECK(worst < 1e-3);  // two f32 results through 30 layers; logits reach 30
      MESSAGE(prompt.at("text").get<std::string>(), ": largest difference of a logit ", worst);
    }
  }
}

TEST_CASE("SmolLM2: 64 greedy tokens of 20 prompts, with the cache, as transformers continues them") {
  const auto path = test::smollm2_path();
  if (!path) return;
  const auto model = models::load_pretrained(*path, {.keep_blocks = true, .keep_table = true});
  for (const auto& prompt : golden("prompts")) {
    CAPTURE(prompt.at("text").get<std::string>());
    auto wanted = prompt.at("ids").get<Ids>();
    const auto continued = prompt.at("continued").get<Ids>();
    const Ids got = models::sample(*model, wanted, {.max_tokens = static_cast<std::int64_t>(continued.size()), .temperature = 0});
    wanted.insert(wanted.end(), continued.begin(), continued.end());
    CHECK(got == wanted);
  }
}

TEST_CASE("SmolLM2: the loss of a text as transformers has it") {
  const auto path = test::smollm2_path();
  if (!path) return;
  const train::RunModel m = train::load_run_model(*path);
  std::map<std::string, Tensor> wanted;
  for (auto& [name, t] : load(kGolden)) wanted.emplace(name, t);
  const auto tokens = wanted.at("tokens").data<std::int64_t>();
  const Ids ids(tokens.begin(), tokens.end());
  text::TokenStream stream;
  stream.append(std::span<const std::int32_t>(ids));
  CHECK(train::evaluate(*m.model, stream, {.batch = 1, .seq = 512}).loss == doctest::Approx(wanted.at("loss").item()).epsilon(1e-5));
}

TEST_CASE("SmolLM2: chats through its template, and its answers to their end") {
  const auto path = test::smollm2_path();
  if (!path) return;
  const train::RunModel m = train::load_run_model(*path, {.keep_blocks = true, .keep_table = true});
  const auto chat = text::load_chat_template(*path, *m.tokenizer);
  REQUIRE(chat);
  for (const auto& c : io::parse_json(io::SafetensorsFile(kGolden).metadata().at("chat"), "chat")) {
    const std::string text = chat->render(c.at("messages"), {.add_generation_prompt = true});
    CHECK(text == c.at("text").get<std::string>());
    auto wanted = m.tokenizer->encode(text);
    CHECK(wanted == c.at("ids").get<Ids>());
    const Ids got = models::sample(*m.model, wanted, {.max_tokens = 200, .temperature = 0, .stop = {*m.tokenizer->end_of_text()}});
    const auto answer = c.at("answer").get<Ids>();
    wanted.insert(wanted.end(), answer.begin(), answer.end());
    CHECK(got == wanted);
  }
  auto model = FastLanguageModel::from_pretrained(*path);
  CHECK(model.generate("What is the capital of France?", {.max_tokens = 40, .temperature = 0, .chat = true}) == "The capital of France is Paris.");
}

TEST_CASE("SmolLM2: exported and read back, what 8 and 4 bits cost") {
  const auto path = test::smollm2_path();
  if (!path) return;
  const test::TempDir dir;
  const train::RunModel source = train::load_run_model(*path, {.keep_blocks = true, .keep_table = true});
  const Ids ids =
      source.tokenizer->encode("The capital of France is Paris. Water boils at 100 degrees, and ice melts at zero. def f(x): return x + 1");
  const auto exported = [&](io::Encoding type) {
    models::save_gguf(*source.model, dir / "m.gguf", {.type = type, .source = *path});
    const train::RunModel back = train::load_run_model(dir / "m.gguf", {.keep_blocks = true, .keep_table = true});
    CHECK(back.tokenizer->encode("<|im_start|>user 12345") == source.tokenizer->encode("<|im_start|>user 12345"));
    CHECK(text::chat_template_text(dir / "m.gguf") == text::chat_template_text(*path));
    return train::compare(*source.model, *back.model, ids);
  };
  const train::Parity f16_parity = exported(f16), q8 = exported(kernels::Format::q8_0), q4 = exported(kernels::Format::q4_0);
  MESSAGE("KL divergence a token: f16 " << f16_parity.kl_mean << ", q8_0 " << q8.kl_mean << ", q4_0 " << q4.kl_mean);
  CHECK(std::fabs(f16_parity.other_perplexity / f16_parity.source_perplexity - 1) < 2e-3);
  CHECK(f16_parity.kl_mean < q8.kl_mean);
  CHECK(q8.kl_mean < q4.kl_mean);
  CHECK(q8.kl_mean < 0.02);
}
