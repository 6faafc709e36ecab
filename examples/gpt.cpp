// gpt.cpp - a GPT of 100,000 parameters learns a short text by heart in bf16 and says it.
#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {
const std::string kText = "Scale what is small before it vanishes, skip the step that overflows, halve the scale and go on.\n";

constexpr std::int64_t kBatch = 8, kTime = 32;
}  // namespace

int main() {
  manual_seed(1);
  const ByteTokenizer tokenizer;
  const std::vector<std::int32_t> tokens = tokenizer.encode(kText);

  models::Gpt model({.vocab = tokenizer.vocab_size(), .context = kTime, .layers = 2, .heads = 4, .width = 64});
  optim::AdamW opt(model.named_parameters(), {.lr = 2e-3, .betas = {0.9, 0.99}});
  train::Step step(opt, {.recipe = "bf16", .clip_norm = 1});

  Generator order(1);
  std::vector<std::int32_t> ids(kBatch * kTime), targets(kBatch * kTime);  // (B, T)
  for (int i = 0; i <= 400; ++i) {
    for (std::int64_t b = 0; b < kBatch; ++b) {
      const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(order.below(tokens.size() - kTime));
      std::copy_n(begin, kTime, ids.begin() + b * kTime);
      std::copy_n(begin + 1, kTime, targets.begin() + b * kTime);
    }
    const auto report = step([&](int) {
      return model.loss(from_span<std::int32_t>(ids, {kBatch, kTime}), from_span<std::int32_t>(targets, {kBatch, kTime}));
    });
    if (i % 100 == 0) std::printf("step %3d  loss %.2f\n", i, report.loss);
  }

  const std::string said = tokenizer.decode(models::sample(model, tokenizer.encode("Scale what"), {.max_tokens = 28, .temperature = 0}));
  std::printf("%s\n", said.c_str());
  return kText.starts_with(said) ? 0 : 1;  // known by heart, or not
}
