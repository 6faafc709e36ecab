// parity_test.cpp - two models compared over a text.
#include <cmath>

#include <doctest/doctest.h>

#include "train/parity.h"
#include "train/support.h"

namespace mezzo::test {

TEST_CASE("a divergence is at least 0, whatever rounding makes of two models that are all but the same") {
  const auto shape = models::model_from_spec("gpt:layers=1,heads=2,width=32,vocab=256,context=64");
  std::vector<std::int32_t> ids;
  for (const char c : small_text(300)) ids.push_back(static_cast<unsigned char>(c));
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    manual_seed(seed);
    const auto a = models::make_model(shape);
    manual_seed(seed);
    const auto b = models::make_model(shape);
    for (auto& [path, w] : b->named_parameters()) {
      auto values = w.mutable_data<float>();
      for (float& v : values) v *= 1 + 1e-6F;
    }
    const auto p = train::compare(*a, *b, ids, 64);
    CHECK(p.kl_mean >= 0);
    CHECK(p.kl_max >= 0);
    CHECK(p.kl_mean <= p.kl_max);
    // The same sum of f32 losses in another order: 300 terms, each rounded by at most 2^-24 of itself, as are the window's sums.
    CHECK(train::loss_on(*a, ids, 64) == doctest::Approx(std::log(p.source_perplexity)).epsilon(300.0 / (1 << 24)));
  }
}

}  // namespace mezzo::test
