// clip_grad_norm: the norm, the factor, layouts, what is not finite.
#include <cmath>
#include <limits>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

TEST_CASE("the total norm is clipped to max_norm by torch's factor") {
  const Tensor a = parameter({0, 0}, {2}), b = parameter({0, 0, 0}, {3}), without = parameter({1}, {1});
  set_gradient(a, {3, 0});
  set_gradient(b, {0, 4, 0});
  CHECK(optim::clip_grad_norm({a, b, without}, 2.5) == doctest::Approx(5).epsilon(1e-7));
  const double factor = 2.5 / (5 + 1e-6);
  CHECK(a.grad().to_vector()[0] == doctest::Approx(3 * factor).epsilon(1e-6));
  CHECK(b.grad().to_vector()[1] == doctest::Approx(4 * factor).epsilon(1e-6));
  CHECK_FALSE(without.grad().defined());
}

TEST_CASE("a norm below max_norm leaves every bit") {
  const Tensor a = parameter({0, 0}, {2});
  set_gradient(a, {0.3f, -0.1f});
  const auto before = bits(a.grad());
  CHECK(optim::clip_grad_norm({a}, 1) == doctest::Approx(std::sqrt(0.1)).epsilon(1e-6));
  CHECK(bits(a.grad()) == before);
}

TEST_CASE("squares are summed in double: norms beyond f32's range of squares") {
  const Tensor big = parameter({0, 0}, {2}), small = parameter({0, 0}, {2});
  set_gradient(big, {3e30f, 4e30f});
  CHECK(optim::clip_grad_norm({big}, 1) == doctest::Approx(5e30).epsilon(1e-6));
  CHECK(big.grad().to_vector()[0] == doctest::Approx(0.6).epsilon(1e-6));
  set_gradient(small, {3e-30f, 4e-30f});
  CHECK(optim::clip_grad_norm({small}, 1) == doctest::Approx(5e-30).epsilon(1e-6));
}

TEST_CASE("a norm that is not finite changes nothing") {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const Tensor a = parameter({0, 0}, {2});
    set_gradient(a, {bad, 7});
    CHECK_FALSE(std::isfinite(optim::clip_grad_norm({a}, 1)));
    CHECK(a.grad().to_vector()[1] == 7);
  }
}

TEST_CASE("strided and 16-bit gradients are clipped in place") {
  const Tensor w = parameter({0, 0, 0, 0, 0, 0}, {2, 3});
  const Tensor base = tensor({1, 2, 3, 4, 5, 6}, {3, 2});
  const Tensor g = base.transpose(0, 1);
  w.set_grad(g);
  const double norm = std::sqrt(91.0);
  CHECK(optim::clip_grad_norm({w}, norm / 2) == doctest::Approx(norm).epsilon(1e-7));
  CHECK(base.to_vector()[5] == doctest::Approx(3).epsilon(1e-6));  // the view's own elements

  const Tensor low = parameter({0, 0}, {2}, bf16);
  set_gradient(low, {3, 4});
  CHECK(optim::clip_grad_norm({low}, 2.5) == doctest::Approx(5));
  CHECK(low.grad().dtype() == bf16);
  CHECK(low.grad().to_vector()[1] == 2);
}

TEST_CASE("clip_grad_norm: misuse, nothing to clip") {
  CHECK(optim::clip_grad_norm({}, 1) == 0);
  CHECK_ERROR(optim::clip_grad_norm({}, -1), "[clip_grad_norm]", "max_norm = -1");
  CHECK_ERROR(optim::clip_grad_norm({}, std::nan("")), "max_norm = nan");
}
