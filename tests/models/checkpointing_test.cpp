// checkpointing_test.cpp - activations computed again in backward: the same loss and the same gradients, bit for bit.
#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

struct Outcome {
  double loss = 0;
  std::vector<std::pair<std::string, std::vector<float>>> gradients;
  std::uint64_t counter = 0;  // of the generator afterwards
};

Outcome step(models::LanguageModel& model, int every, bool autocast, const models::Sequence& sequence) {
  std::vector<std::int32_t> ids(24), next(24);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 40), next[i] = static_cast<std::int32_t>(i * 11 % 40);
  const Tensor x = from_span(std::span<const std::int32_t>(ids), {1, 24}), y = from_span(std::span<const std::int32_t>(next), {1, 24});
  model.checkpoint_every(every);
  model.zero_grad();
  manual_seed(9);  // of dropout
  const amp::Autocast region(bf16, {.enabled = autocast});
  Outcome out;
  const Tensor loss = model.loss(x, y, sequence);
  loss.backward();
  out.loss = loss.item();
  for (const auto& [path, w] : models::trainable_parameters(model)) {
    REQUIRE(w.grad().defined());
    out.gradients.emplace_back(path, w.grad().to_vector());
  }
  out.counter = default_generator().counter();
  return out;
}

}  // namespace

TEST_CASE("checkpointed blocks: the loss and every gradient are the same bits") {
  struct Case {
    const char* spec;
    bool lora;
  };
  for (const Case& c : {Case{"gpt:layers=3,heads=2,width=32,vocab=40,context=32,dropout=0.2", false},
                        Case{"llama:layers=3,heads=2,kv_heads=1,width=32,ffn=64,vocab=40,context=32", false},
                        Case{"llama:layers=3,heads=2,kv_heads=1,width=32,ffn=64,vocab=40,context=32", true}}) {
    manual_seed(1);
    const auto model = models::make_model(models::model_from_spec(c.spec));
    if (c.lora) {
      models::add_lora(*model, {.rank = 2, .dropout = 0.2});
      const autograd::NoGrad off;
      for (const auto& [path, w] : models::trainable_parameters(*model)) copy_(w, randn(w.shape()));  // B is not zero any more
    }
    for (const bool autocast : {false, true})
      for (const models::Sequence& sequence : {models::Sequence{}, models::Sequence{.lengths = {5, 12, 7}}}) {
        if (!sequence.lengths.empty() && std::string_view(c.spec).starts_with("gpt")) continue;  // attention's dropout takes no documents
        const Outcome kept = step(*model, 0, autocast, sequence);
        CHECK(!kept.gradients.empty());
        for (const int every : {1, 2, 5}) {
          CAPTURE(c.spec);
          CAPTURE(every);
          const Outcome again = step(*model, every, autocast, sequence);
          CHECK(again.loss == kept.loss);
          CHECK(again.gradients == kept.gradients);
          CHECK(again.counter == kept.counter);
        }
      }
  }
}
