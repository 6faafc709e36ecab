// gpt_golden_test.cpp - a 2-layer GPT against PyTorch: logits, loss and every gradient in f32 to 1e-5, in bf16 within the format's bound.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

struct Golden {
  std::shared_ptr<models::Gpt> model;
  std::map<std::string, Tensor> expected;  // "tokens", "targets", "logits", "loss", "grad.<parameter>"
};

Golden golden() {
  Golden g;
  g.model = std::make_shared<models::Gpt>(models::GptOptions{.vocab = 65, .context = 32, .layers = 2, .heads = 4, .width = 64});
  g.model->load_state_dict(load("tests/golden/gpt2layer.safetensors"));
  for (auto& [name, t] : load("tests/golden/gpt2layer_f64.safetensors")) g.expected[name] = t;
  return g;
}

/// |a - b| / |b| in the 2-norm.
double relative_error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector(), y = b.to_vector();
  double d = 0, n = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    d += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
    n += static_cast<double>(y[i]) * y[i];
  }
  const double r = std::sqrt(d / n);
  return std::isnan(r) ? std::numeric_limits<double>::infinity() : r;
}

/// The largest error of any gradient after one backward under `region`.
double gradient_error(Golden& g, std::optional<Dtype> region, double* loss_error) {
  const auto loss = [&] { return g.model->loss(g.expected["tokens"], g.expected["targets"]); };
  const Tensor l = region ? amp::autocast(*region, loss) : loss();
  l.backward();
  *loss_error = std::fabs(l.item() - g.expected["loss"].item());
  double worst = 0;
  for (const auto& [key, t] : g.model->named_parameters()) {
    const std::string& name = key;
    CAPTURE(name);
    REQUIRE(t.grad().defined());
    CHECK(t.grad().dtype() == f32);
    worst = std::max(worst, relative_error(t.grad(), g.expected.at("grad." + name)));
  }
  return worst;
}

}  // namespace

TEST_CASE("f32: logits, loss and every gradient within 1e-5 of PyTorch's float64") {
  Golden g = golden();
  CHECK(relative_error((*g.model)(g.expected["tokens"]).detach(), g.expected["logits"]) < 1e-5);
  double loss_error = 0;
  const double worst = gradient_error(g, {}, &loss_error);
  MESSAGE("f32: largest relative error of a gradient " << worst);
  CHECK(worst < 1e-5);
  CHECK(loss_error < 1e-5);
}

TEST_CASE("16 bits: gradients within a few roundings a layer, and no better than the format can be") {
  for (const Dtype dtype : {bf16, f16}) {
    Golden g = golden();
    double loss_error = 0;
    const double worst = gradient_error(g, dtype, &loss_error), eps = format_info(dtype).epsilon;
    MESSAGE(name(dtype) << ": largest relative error of a gradient " << worst << " = " << worst / eps << " eps");
    // About 8 roundings of eps/2 on the way through each of two blocks and back, as independent errors: sqrt(32) eps/2 = 2.8 eps.
    CHECK(worst < 4 * eps);
    CHECK(worst > eps / 16);
    CHECK(loss_error < 4 * eps);
  }
}

TEST_CASE("a saved model read back in Hugging Face's layout gives the same logits, bit for bit") {
  Golden g = golden();
  const auto dir = std::filesystem::temp_directory_path() / "mezzo-test-pretrained";
  models::save_pretrained(*g.model, dir);
  const auto again = models::load_pretrained(dir);
  CHECK((*again)(g.expected["tokens"]).to_vector() == (*g.model)(g.expected["tokens"]).to_vector());
  std::filesystem::remove_all(dir);
}
