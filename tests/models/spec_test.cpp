// spec_test.cpp - models as text.
#include <doctest/doctest.h>

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
