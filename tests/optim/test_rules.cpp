// Rules by numbers that can be worked out by hand.
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

TEST_CASE("Lion, worked out by hand") {
  const Tensor w = parameter({1, -1, 2, 0.5f}, {4});
  optim::Lion lion({w}, {.lr = 0.25, .betas = {0.5, 0.75}, .weight_decay = 0.5});  // all numbers below are exact in f32
  set_gradient(w, {1, -2, 0, 4});
  lion.step();  // m = 0: sign of g; w (1 - 1/8) - 1/4 sign
  CHECK(w.to_vector() == std::vector<float>{0.875f - 0.25f, -0.875f + 0.25f, 1.75f, 0.4375f - 0.25f});
  CHECK(named(lion.state().tensors, "exp_avg.0").to_vector() == std::vector<float>{0.25f, -0.5f, 0, 1});
  set_gradient(w, {-0.25f, 1, -1, 0});
  lion.step();  // c = (m + g) / 2: 0, 0.25, -0.5, 0.5
  CHECK(w.to_vector() == std::vector<float>{0.625f * 0.875f, -0.625f * 0.875f - 0.25f, 1.75f * 0.875f + 0.25f, 0.1875f * 0.875f - 0.25f});
  CHECK(named(lion.state().tensors, "exp_avg.0").to_vector() == std::vector<float>{0.1875f - 0.0625f, -0.375f + 0.25f, -0.25f, 0.75f});
}

TEST_CASE("Adafactor: three dims are factored in the last two, a 0-dim parameter is not") {
  const Tensor stack = parameter(std::vector<float>(24, 1), {2, 3, 4}), scalar = parameter({2}, {});
  optim::Adafactor adafactor({stack, scalar}, {.lr = 0.125});
  set_gradient(stack, std::vector<float>(24, 3));
  set_gradient(scalar, {-5});
  adafactor.step();
  const auto state = adafactor.state();
  CHECK(named(state.tensors, "row_var.0").shape() == Shape{2, 3, 1});
  CHECK(named(state.tensors, "col_var.0").shape() == Shape{2, 1, 4});
  CHECK(named(state.tensors, "variance.1").shape() == Shape{});
  CHECK(named(state.tensors, "row_var.0").to_vector() == std::vector<float>(6, 9));
  // g / sqrt(V) is 1 everywhere: the step is lr times the parameter's root mean square.
  for (const float x : stack.to_vector()) CHECK(x == doctest::Approx(1 - 0.125).epsilon(1e-6));
  CHECK(scalar.item() == doctest::Approx(2 + 0.25).epsilon(1e-6));
}
