// finetune_gpt2_test.cpp - GPT-2 trained further: the layers and the dropout that Llama does not have.
#include <doctest/doctest.h>

#include <mezzo/fast_language_model.h>

#include "io/json.h"
#include "models/model_file.h"
#include "train/tuning_support.h"

namespace mezzo::test {
namespace {

/// A small GPT-2 whose file asks for dropout, as OpenAI's do.
fs::path write_gpt2(const TempDir& dir) { return write_base_of(dir, "gpt2", 5, "gpt:layers=2,heads=2,width=32,vocab=256,context=64,dropout=0.1"); }

}  // namespace

TEST_CASE("GPT-2: stopped and resumed bit for bit, packed, with adapters and whole; dropout is what was asked for, and what its file says stays") {
  const TempDir dir;
  const std::string base = write_gpt2(dir).native();
  struct Case {
    const char* precision;
    bool full, packing;
    double dropout;
    const char* quantize = "";
  };
  std::vector<std::vector<double>> losses;
  int n = 0;
  for (const Case& c : {Case{"fp32", true, false, 0}, Case{"fp32", true, true, 0}, Case{"fp32", true, false, 0.1}, Case{"fp32", false, true, 0},
                        Case{"bf16", false, true, 0, "q8_0"}, Case{"fp16", false, false, 0.1}}) {
    ++n;
    CAPTURE(n);
    auto o = small_tuning(dir, fmt::format("straight-{}", n), c.precision, c.full);
    o.model = base;
    o.val_fraction = 0.2;
    o.tune->packing = c.packing;
    o.tune->dropout = c.dropout;
    o.tune->quantize_base = c.quantize;
    o.tune->lora.dropout = 0;
    const auto straight = run(o);
    losses.push_back(losses_of(o.out));
    CHECK(losses.back().back() < losses.back().front());
    auto two = o;
    two.out = dir / fmt::format("two-{}", n);
    two.resume = true;
    const auto whole = run_in_two(o, two.out);
    CHECK(*whole.val_loss == *straight.val_loss);
    CHECK(slurp(whole.checkpoint / "weights.safetensors") == slurp(straight.checkpoint / "weights.safetensors"));
    two.tune->dropout = c.dropout + 0.01;
    two.tune->packing = false;
    CHECK(contains(refused(two), "--dropout"));

    const auto written = train::load_run_model(o.out / "model");
    CHECK(std::get<models::GptOptions>(models::ModelFile(c.full ? o.out / "model" : fs::path(base)).options()).dropout == 0.1);
    if (c.full) continue;
    CHECK(weights_of(straight.checkpoint).size() == 2 * 2 * 4);  // A and B, layers, projections
    CHECK(io::read_json(o.out / "model/adapter_config.json")["target_modules"] == io::Json({"c_attn", "c_fc", "c_proj"}));
    CHECK(models::trainable_parameters(*written.model).size() == 2 * 2 * 4);
  }
  CHECK(losses[0] != losses[2]);
  CHECK(losses[0] != losses[1]);  // other examples to a row
  auto llama = small_tuning(dir, "llama");
  llama.tune->packing = false;
  llama.tune->dropout = 0.1;
  CHECK(contains(refused(llama), "--dropout 0.1 given, and "));
  llama.tune->packing = true;
  CHECK(contains(refused(llama), "attention weights of packed examples cannot be dropped out. Hint: --no-packing"));
  llama.tune->dropout = 1;
  CHECK(contains(refused(llama), "--dropout 1 given, a number of at least 0 and below 1 wanted"));
}

TEST_CASE("FastLanguageModel: a GPT-2 drops nothing out unless it is told") {
  const TempDir dir;
  const auto base = write_gpt2(dir);
  const auto losses = [&](const PretrainedOptions& options) {
    manual_seed(1);
    auto model = FastLanguageModel::from_pretrained(base, options);
    model.for_training();
    const std::vector<std::int32_t> ids(32, 7);
    const Tensor x = from_span(std::span(ids), {2, 16});
    const double first = model.model().loss(x, x).item(), second = model.model().loss(x, x).item();
    return std::pair(first, second);
  };
  const auto [a, b] = losses({});
  CHECK(a == b);
  const auto [c, d] = losses({.dropout = 0.5});
  CHECK(c != d);
}

}  // namespace mezzo::test
