// generation_test.cpp - what the cache and packing must not change: the same tokens, the same losses.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

std::shared_ptr<models::LanguageModel> small(const char* family, std::int64_t context = 24) {
  manual_seed(3);
  const std::string spec = std::string(family) == "gpt" ? "gpt:layers=2,heads=4,width=32,vocab=50,context="
                                                        : "llama:layers=2,heads=4,kv_heads=2,width=32,vocab=50,context=";
  auto model = models::make_model(models::model_from_spec(spec + std::to_string(context)));
  const autograd::NoGrad off;
  for (auto& w : model->parameters())  // far from the small initial values, under which all tokens look alike
    if (w.dim() == 2) copy_(w, w * 10.0);
  return model;
}

Tensor ids_of(const std::vector<std::int32_t>& v) { return from_span(std::span<const std::int32_t>(v), {1, static_cast<std::int64_t>(v.size())}); }

double largest_difference(const Tensor& a, const Tensor& b) { return amax(abs(sub(a, b))).item(); }

}  // namespace

TEST_CASE("with the cache, each step's logits are those of the whole prefix") {
  const autograd::NoGrad off;
  for (const char* family : {"gpt", "llama"}) {
    CAPTURE(family);
    const auto model = small(family);
    const std::vector<std::int32_t> tokens{7, 3, 44, 21, 0, 49, 13, 8, 8, 30, 2};
    models::KvCache cache = model->make_cache(1, 16);
    std::size_t read = 0;
    for (const std::size_t n : {4, 1, 1, 3, 2}) {  // a prompt, single tokens, and chunks
      const std::vector<std::int32_t> next(tokens.begin() + static_cast<std::ptrdiff_t>(read),
                                           tokens.begin() + static_cast<std::ptrdiff_t>(read + n));
      const Tensor with = model->last_logits(ids_of(next), {.cache = &cache});
      read += n;
      CHECK(cache.length() == static_cast<std::int64_t>(read));
      const Tensor whole = model->last_logits(ids_of({tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(read)}));
      CHECK(largest_difference(with, whole) < 1e-4);  // logits of size 10: a few roundings
    }
  }
}

TEST_CASE("sampling goes on past the context, and the same seed gives the same text") {
  for (const char* family : {"gpt", "llama"}) {
    const auto model = small(family, 12);
    const models::SampleOptions o{.max_tokens = 40, .temperature = 1, .seed = 5};
    const auto a = models::sample(*model, {1, 2, 3}, o), b = models::sample(*model, {1, 2, 3}, o);
    CHECK(a.size() == 43);
    CHECK(a == b);
  }
}

TEST_CASE("sampling: what top_k, top_p, the penalty and stop tokens leave") {
  const auto model = small("llama");
  const std::vector<std::int32_t> prompt{1, 2, 3};
  const auto next = [&](const models::SampleOptions& o) { return models::sample(*model, prompt, o).back(); };
  const std::int32_t likeliest = next({.max_tokens = 1, .temperature = 0});
  Tensor logits;
  {
    const autograd::NoGrad off;
    logits = model->last_logits(ids_of(prompt));
  }
  std::vector<std::pair<double, std::int32_t>> shares;  // probabilities, falling
  const auto p = softmax(logits, -1).to_vector();
  for (std::size_t i = 0; i < p.size(); ++i) shares.emplace_back(-static_cast<double>(p[i]), static_cast<std::int32_t>(i));
  std::sort(shares.begin(), shares.end());
  CHECK(shares[0].second == likeliest);

  const auto drawn = [&](models::SampleOptions o) {
    std::set<std::int32_t> seen;
    for (o.seed = 0; o.seed < 300; ++o.seed) seen.insert(next(o));
    return seen;
  };
  const auto first = [&](std::size_t n) {
    std::set<std::int32_t> out;
    for (std::size_t i = 0; i < n; ++i) out.insert(shares[i].second);
    return out;
  };
  const double two = -shares[0].first - shares[1].first;
  CHECK(drawn({.max_tokens = 1, .temperature = 1, .top_k = 1}) == first(1));
  CHECK(drawn({.max_tokens = 1, .temperature = 1, .top_p = -shares[0].first * 0.9}) == first(1));
  CHECK(drawn({.max_tokens = 1, .temperature = 3, .top_k = 3}) == first(3));
  CHECK(drawn({.max_tokens = 1, .temperature = 1, .top_p = two * 0.999}).size() <= 2);
  // Of the two likeliest, the share that holds them both again takes both, and less than the first's own takes one.
  CHECK(drawn({.max_tokens = 1, .temperature = 5, .top_k = 2, .top_p = 0.999}) == first(2));
  CHECK(drawn({.max_tokens = 1, .temperature = 5, .top_k = 2, .top_p = 0.4}) == first(1));

  // A penalty so large that no token of the text comes again.
  const auto text = models::sample(*model, prompt, {.max_tokens = 12, .temperature = 0, .repetition_penalty = 1e6});
  CHECK(std::set<std::int32_t>(text.begin(), text.end()).size() == text.size());

  std::vector<std::int32_t> seen;
  const auto stopped = models::sample(*model, prompt, {.max_tokens = 9, .temperature = 0, .stop = {likeliest}},
                                      [&](std::int32_t id) { return seen.push_back(id), true; });
  CHECK(stopped == std::vector<std::int32_t>{1, 2, 3, likeliest});
  CHECK(seen.empty());
  for (const models::SampleOptions& bad :
       {models::SampleOptions{.max_tokens = -1}, models::SampleOptions{.temperature = -1}, models::SampleOptions{.top_k = -1},
        models::SampleOptions{.top_p = 0}, models::SampleOptions{.top_p = 1.1}, models::SampleOptions{.repetition_penalty = 0}})
    CHECK_THROWS_AS(models::sample(*model, prompt, bad), Error);
}

TEST_CASE("documents packed into one row have the loss and the gradients they have apart") {
  for (const char* family : {"gpt", "llama"}) {
    CAPTURE(family);
    const auto model = small(family);
    const std::vector<std::vector<std::int32_t>> documents{{5, 9, 11, 40, 2}, {33}, {8, 8, 1, 27, 49, 16, 3, 12, 0}};
    std::vector<std::int32_t> row, targets;
    models::Sequence packed;
    Tensor apart;  // summed loss
    for (const auto& d : documents) {
      std::vector<std::int32_t> next(d.begin() + 1, d.end());
      next.push_back(-100);
      if (d.size() > 1) {
        const Tensor l = model->loss(ids_of(d), ids_of(next), {.reduction = Reduction::sum});
        apart = apart.defined() ? apart + l : l;
      }
      row.insert(row.end(), d.begin(), d.end());
      targets.insert(targets.end(), next.begin(), next.end());
      packed.lengths.push_back(static_cast<std::int64_t>(d.size()));
    }
    apart.backward();
    std::vector<Tensor> wanted;
    for (const auto& w : model->parameters()) wanted.push_back(w.grad().clone());
    model->zero_grad();
    const Tensor together = model->loss(ids_of(row), ids_of(targets), packed, {.reduction = Reduction::sum});
    CHECK(together.item() == doctest::Approx(apart.item()).epsilon(1e-6));
    together.backward();
    std::size_t i = 0;
    for (const auto& [path, w] : model->named_parameters()) {
      const std::string name = path;
      CAPTURE(name);
      const double scale = amax(abs(wanted[i])).item();
      CHECK(largest_difference(w.grad(), wanted[i]) <= 1e-5 * scale);
      ++i;
    }
  }
}

TEST_CASE("packing and caches are refused where they make no sense") {
  const auto model = small("llama");
  const Tensor ids = ids_of({1, 2, 3, 4});
  CHECK_THROWS_WITH_AS(model->loss(ids, ids, {.lengths = {2, 3}}), doctest::Contains("5 tokens in all given for rows of 4"), Error);
  CHECK_THROWS_WITH_AS(model->loss(ids, ids, {.lengths = {4, 0}}), doctest::Contains("0 tokens"), Error);
  const autograd::NoGrad off;
  models::KvCache cache = model->make_cache(1, 3);
  CHECK_THROWS_WITH_AS(model->last_logits(ids, {.cache = &cache}), doctest::Contains("room for 3"), Error);
  CHECK_THROWS_WITH_AS(model->last_logits(ids, {.lengths = {4}, .cache = &cache}), doctest::Contains("documents together with a cache"), Error);
}
