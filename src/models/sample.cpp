// sample.cpp - text from a model, token by token.
#include <algorithm>
#include <cmath>

#include <mezzo/models.h>

#include "autograd/context.h"
#include "core/fail.h"

namespace mezzo::models {
namespace {

struct Candidate {
  float logit;
  std::int32_t id;
};
/// Ties by number, so that the order is one.
bool less_likely(const Candidate& a, const Candidate& b) { return a.logit < b.logit || (a.logit == b.logit && a.id > b.id); }

/// One draw from softmax(logits / temperature) over what top_k and top_p leave.
std::int32_t draw(const std::vector<float>& logits, const SampleOptions& o, Generator& random) {
  std::vector<Candidate> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) all[i] = {logits[i], static_cast<std::int32_t>(i)};
  const Candidate first = *std::max_element(all.begin(), all.end(), less_likely);
  if (o.temperature == 0) return first.id;
  const auto weight = [&](const Candidate& c) { return std::exp((static_cast<double>(c.logit) - static_cast<double>(first.logit)) / o.temperature); };

  // [kept, end): what may be drawn. With limits the likeliest come last, taken one by one from a heap, which does not sort the rest.
  auto kept = all.begin();
  double held = 0;  // weight of those
  if (o.top_k > 0 || o.top_p < 1) {
    kept = all.end();
    std::make_heap(all.begin(), all.end(), less_likely);
    const auto take = [&] {
      std::pop_heap(all.begin(), kept--, less_likely);
      held += weight(*kept);
    };
    if (o.top_k > 0) {
      while (kept != all.begin() && all.end() - kept < o.top_k) take();
      const double wanted = o.top_p * held;
      while (kept != all.end() - 1 && held - weight(*kept) >= wanted) held -= weight(*kept++);
    } else {
      double total = 0;
      for (const auto& c : all) total += weight(c);
      do take();
      while (kept != all.begin() && held < o.top_p * total);
    }
  } else {
    for (const auto& c : all) held += weight(c);
  }
  double u = random.uniform() * held;
  for (auto c = all.end() - 1; c != kept; --c)
    if ((u -= weight(*c)) < 0) return c->id;
  return kept->id;
}

void penalise(std::vector<float>& logits, const std::vector<std::int32_t>& tokens, double penalty) {
  std::vector<bool> done(logits.size());
  for (const auto id : tokens) {
    const auto i = static_cast<std::size_t>(id);
    if (done[i]) continue;
    done[i] = true;
    logits[i] = static_cast<float>(logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty);
  }
}

void check(const std::vector<std::int32_t>& prompt, const SampleOptions& o) {
  if (prompt.empty()) fail("sample", "an empty prompt given, one token or more wanted");
  if (!(o.temperature >= 0)) fail("sample", fmt::format("temperature {} given, 0 or more wanted", o.temperature));
  if (o.max_tokens < 0) fail("sample", fmt::format("max_tokens {} given, 0 or more wanted", o.max_tokens));
  if (o.top_k < 0) fail("sample", fmt::format("top_k {} given, 0 or more wanted", o.top_k));
  if (!(o.top_p > 0 && o.top_p <= 1)) fail("sample", fmt::format("top_p {} given, a share above 0 and up to 1 wanted", o.top_p));
  if (!(o.repetition_penalty > 0)) fail("sample", fmt::format("repetition_penalty {} given, a number above 0 wanted", o.repetition_penalty));
}

}  // namespace

std::vector<std::int32_t> sample(LanguageModel& model, std::vector<std::int32_t> prompt, const SampleOptions& o,
                                 const std::function<bool(std::int32_t)>& on_token) {
  check(prompt, o);
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
    auto logits = model.last_logits(ids, {.cache = &cache}).to_vector();
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }))
      fail("sample", "the model's logits are not finite",
           "its training diverged (an earlier checkpoint may do), or its numbers are beyond f16 (precision fp32 tells)");
    if (o.repetition_penalty != 1) penalise(logits, tokens, o.repetition_penalty);
    const std::int32_t next = draw(logits, o, random);
    tokens.push_back(next);
    if (std::find(o.stop.begin(), o.stop.end(), next) != o.stop.end()) break;
    if (on_token && !on_token(next)) break;
  }
  model.train(training);
  return tokens;
}

}  // namespace mezzo::models
