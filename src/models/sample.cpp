// sample.cpp - text from a model, token by token.
#include <algorithm>
#include <cmath>
#include <numeric>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"

namespace mezzo::models {
namespace {

/// One draw from softmax(logits / temperature) over the top_k likeliest.
std::int32_t draw(const std::vector<float>& logits, const SampleOptions& o, Generator& random) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](std::int32_t a, std::int32_t b) {  // ties by number, so that the order is one
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  if (o.temperature == 0) return *std::min_element(order.begin(), order.end(), likelier);
  const auto k = o.top_k > 0 ? std::min(static_cast<std::size_t>(o.top_k), order.size()) : order.size();
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(), likelier);
  std::vector<double> weight(k);
  const double largest = static_cast<double>(logits[static_cast<std::size_t>(order[0])]);
  double total = 0;
  for (std::size_t i = 0; i < k; ++i)
    total += weight[i] = std::exp((static_cast<double>(logits[static_cast<std::size_t>(order[i])]) - largest) / o.temperature);
  double u = random.uniform() * total;
  for (std::size_t i = 0; i + 1 < k; ++i)
    if ((u -= weight[i]) < 0) return order[i];
  return order[k - 1];
}

}  // namespace

std::vector<std::int32_t> sample(LanguageModel& model, std::vector<std::int32_t> prompt, const SampleOptions& o,
                                 const std::function<bool(std::int32_t)>& on_token) {
  if (prompt.empty()) fail("sample", "an empty prompt given, one token or more wanted");
  if (!(o.temperature >= 0)) fail("sample", fmt::format("temperature {} given, 0 or more wanted", o.temperature));
  if (o.top_k < 0) fail("sample", fmt::format("top_k {} given, 0 or more wanted", o.top_k));
  const GradMode off(false);
  const bool training = model.is_training();
  model.eval();
  Generator random(o.seed);
  const auto context_length = model.context();
  auto& tokens = prompt;
  // The tokens read so far stay in the cache; once the context is full, it is read anew from its second half, so that the price is shared by many.
  const auto capacity = std::min(context_length, static_cast<std::int64_t>(tokens.size()) + o.max_tokens);
  KvCache cache = model.make_cache(1, capacity);
  for (std::int64_t i = 0; i < o.max_tokens; ++i) {
    const auto n = static_cast<std::int64_t>(tokens.size());
    std::int64_t first = i == 0 ? std::max<std::int64_t>(0, n - context_length) : n - 1;
    if (i > 0 && cache.length() + 1 > context_length) {
      cache.truncate(0);
      first = n - std::max<std::int64_t>(1, context_length / 2);
    }
    const Tensor ids = from_span(std::span<const std::int32_t>(tokens.data() + first, static_cast<std::size_t>(n - first)), {1, n - first});
    const auto logits = model.last_logits(ids, {.cache = &cache}).to_vector();
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }))
      fail("sample", "the model's logits are not finite", "its training diverged; sample an earlier checkpoint");
    const std::int32_t next = draw(logits, o, random);
    tokens.push_back(next);
    if (on_token && !on_token(next)) break;
  }
  model.train(training);
  return tokens;
}

}  // namespace mezzo::models
