// spec_test.cpp - models as text.
#include <doctest/doctest.h>

#include <algorithm>
#include <tuple>

#include <fmt/core.h>

#include <mezzo/mezzo.h>

using namespace mezzo;

TEST_CASE("a spec and its options say the same") {
  for (const char* spec :
       {"gpt:layers=2,heads=4,width=32,vocab=50,context=24", "gpt:layers=2,heads=4,width=32,vocab=50,context=24,dropout=0.1",
        "llama:layers=2,heads=4,width=32,vocab=50,context=24,kv_heads=2,ffn=80,rope_base=50000,qk_norm=1", "smollm2-135m", "gpt2-124m"}) {
    CAPTURE(spec);
    const auto options = models::model_from_spec(spec);
    const std::string text = models::to_spec(options);
    CHECK(models::to_spec(models::model_from_spec(text)) == text);
  }
}

TEST_CASE("parameters are counted without being made") {
  CHECK(models::parameter_count(models::model_from_spec("gpt2-124m")) == 124439808);     // 50257 tokens, 1024 positions, head tied
  CHECK(models::parameter_count(models::model_from_spec("smollm2-135m")) == 134515008);  // as its model card says
  const auto before = default_generator();
  const auto reserved = memory_report().reserved;
  models::parameter_count(models::model_from_spec("llama:layers=80,heads=64,kv_heads=8,width=8192,ffn=28672,vocab=128256,tied=0"));
  CHECK(default_generator() == before);
  CHECK(memory_report().reserved == reserved);
}

TEST_CASE("a GPT's first weights are normal numbers, drawn behind those that its layers draw for themselves") {
  manual_seed(7);
  const models::Gpt gpt({.vocab = 50, .context = 24, .layers = 2, .heads = 3, .width = 30});  // biases are no whole blocks of random numbers
  const auto after = default_generator();
  StateDict wanted;
  manual_seed(7);
  const autograd::NoGrad off;
  const nn::Embedding wte({.num = 50, .dim = 30}), wpe({.num = 24, .dim = 30});
  wanted.emplace_back("wte.weight", randn({50, 30}) * 0.02);
  wanted.emplace_back("wpe.weight", randn({24, 30}) * 0.01);
  for (int layer = 0; layer < 2; ++layer)
    for (const auto& [name, in, out, std] : {std::tuple("attn.c_proj", 30, 30, 0.01), std::tuple("attn.c_attn", 30, 90, 0.02),
                                             std::tuple("mlp.c_proj", 120, 30, 0.01), std::tuple("mlp.c_fc", 30, 120, 0.02)}) {
      const nn::Linear linear({.in = in, .out = out});
      wanted.emplace_back(fmt::format("h.{}.{}.weight", layer, name), randn({out, in}) * std);
    }
  CHECK(default_generator() == after);
  std::size_t matrices = 0;
  for (const auto& [key, w] : gpt.named_parameters()) {
    const std::string& path = key;
    CAPTURE(path);
    const auto it = std::find_if(wanted.begin(), wanted.end(), [&](const auto& e) { return e.first == path; });
    if (it != wanted.end()) CHECK(w.to_vector() == it->second.to_vector());
    else CHECK(amax(abs(w - (path.ends_with("bias") ? 0.0 : 1.0))).item() == 0);
    matrices += it != wanted.end();
  }
  CHECK(matrices == wanted.size());
}

TEST_CASE("what is wrong with a spec is named") {
  const auto error = [](const char* spec) {
    try {
      models::model_from_spec(spec);
    } catch (const Error& e) { return std::string(e.what()); }
    return std::string();
  };
  const auto says = [](const std::string& text, const char* what) { return text.find(what) != std::string::npos; };
  CHECK(says(error("lama:layers=2"), "llama"));
  CHECK(says(error("llama:layer=2"), "layers"));
  CHECK(says(error("llama:layers=two"), "layers=two"));
  CHECK(says(error("llama:layers"), "key=value"));
  CHECK(says(error("gpt:width=-4"), "width=-4 given, a number of at least 0"));
  CHECK(says(error("gpt:dropout=nan"), "dropout=nan given, a number"));
  CHECK(says(error("gpt:width=64,layers=2,width=32"), "width= given twice"));
  CHECK(says(error("llama:rope_base=0"), "rope_base 0"));
  CHECK(says(error("gpt:layers=2,heads=3,width=32"), "multiple of its 3 heads"));
  CHECK(says(error("llama:heads=4,kv_heads=3,width=32"), "kv_heads=3"));
  CHECK(says(error("llama:heads=4,width=36"), "an even size"));
}
