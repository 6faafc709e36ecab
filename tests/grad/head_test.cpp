// head_test.cpp - linear_cross_entropy at all numbers of tokens: p - y takes the place of the logits, and no token's may take another's.
#include <cmath>

#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

struct Gradients {
  double loss;
  std::vector<float> dx, dw;
};

template <class Loss> Gradients gradients(const Tensor& x0, const Tensor& w0, Loss loss) {
  const Tensor x = x0.clone().requires_grad_(), w = w0.clone().requires_grad_();
  const Tensor y = loss(x, w);
  y.backward();
  return {y.item(), x.grad().to_vector(), w.grad().to_vector()};
}

double norm_of(const std::vector<float>& v) {
  double sum = 0;
  for (const float x : v) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}
/// The largest over rows of ||a - b|| / ||b||.
double worst_row(const std::vector<float>& a, const std::vector<float>& b, std::size_t columns) {
  double worst = 0;
  for (std::size_t r = 0; r < a.size(); r += columns) {
    std::vector<float> difference(columns), row(b.begin() + static_cast<std::ptrdiff_t>(r), b.begin() + static_cast<std::ptrdiff_t>(r + columns));
    for (std::size_t i = 0; i < columns; ++i) difference[i] = a[r + i] - b[r + i];
    const double d = norm_of(difference) / norm_of(row);
    worst = std::max(worst, std::isnan(d) ? INFINITY : d);
  }
  return worst;
}

}  // namespace

TEST_CASE("head and loss: the gradients of each token, for one token and for several chunks of them") {
  constexpr std::int64_t kVocab = 90, kWidth = 24;  // rows of logits are padded to 128
  Generator random(4);
  for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 33, 64, 65, 255, 256, 257, 290}) {
    CAPTURE(n);
    std::vector<std::int64_t> ids(static_cast<std::size_t>(n));
    for (auto& id : ids) id = static_cast<std::int64_t>(random.below(kVocab));
    const Tensor target = from_span(std::span<const std::int64_t>(ids), {n});
    // Values that both 16-bit formats hold, so that inputs are the same everywhere.
    const Tensor x = randn({n, kWidth}, random).to(bf16).to(f32), w = (randn({kVocab, kWidth}, random) * 0.25).to(bf16).to(f32);
    const LossOptions sum{.reduction = Reduction::sum};
    const Gradients wanted = gradients(x, w, [&](const Tensor& a, const Tensor& b) { return cross_entropy(linear(a, b), target, sum); });
    for (const Dtype dtype : {f32, bf16, f16}) {
      CAPTURE(name(dtype));
      const Gradients got =
          gradients(x.to(dtype), w.to(dtype), [&](const Tensor& a, const Tensor& b) { return linear_cross_entropy(a, b, target, sum); });
      // p - y and each gradient are rounded once: to half an eps of an element, so of a row's norm; sums in f32.
      const double eps = format_info(dtype).epsilon;
      CHECK(std::abs(got.loss / wanted.loss - 1) <= 1e-5);
      CHECK(worst_row(got.dx, wanted.dx, kWidth) <= eps + 1e-5);
      CHECK(worst_row(got.dw, wanted.dw, kVocab * kWidth) <= eps + 1e-5);
    }
  }
}
