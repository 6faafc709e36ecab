// The step itself: what it touches, layouts, scaling as gradients are read, the cast cache.
#include <cmath>

#include <mezzo/amp.h>
#include <mezzo/ops.h>

#include "autograd/cast_cache.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

TEST_CASE("parameters without a gradient, their moments and their step counts are left alone") {
  const Tensor a = parameter({1, 2}, {2}), b = parameter({3, 4}, {2});
  optim::AdamW adamw({a, b}, {.lr = 0.1});
  adamw.step();
  CHECK(adamw.steps() == 0);
  CHECK(a.version() == 0);
  set_gradient(a, {1, 1});
  adamw.step();
  CHECK(adamw.steps() == 1);
  CHECK(a.version() == 1);
  CHECK(b.version() == 0);
  CHECK(b.to_vector() == std::vector<float>{3, 4});
  const auto state = adamw.state();
  CHECK(named(state.tensors, "steps").to_vector() == std::vector<float>{1, 0});
  CHECK(state.tensors.size() == 3);  // steps, exp_avg.0, exp_avg_sq.0
}

TEST_CASE("a parameter that starts late takes Adam's first step, lr long, not the hundredth") {
  const Tensor early = parameter({0}, {1}), late = parameter({0}, {1});
  optim::Adam adam({early, late}, {.lr = 0.125});
  for (int i = 0; i < 99; ++i) {
    set_gradient(early, {1});
    adam.step();
  }
  set_gradient(late, {-3});
  adam.step();
  CHECK(late.item() == doctest::Approx(0.125).epsilon(1e-6));
  CHECK(adam.steps() == 100);
}

TEST_CASE("zero_grad drops gradients") {
  const Tensor w = parameter({1}, {1});
  optim::Sgd sgd({w});
  set_gradient(w, {1});
  sgd.zero_grad();
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("g_scale multiplies gradients as they are read and leaves .grad") {
  const Tensor w = parameter({1}, {1});
  optim::Sgd sgd({w}, {.lr = 1});
  set_gradient(w, {4});
  sgd.step({.g_scale = 0.125});
  CHECK(w.item() == 0.5);
  CHECK(w.grad().item() == 4);
}

TEST_CASE("a g_scale beyond f32's normal range: no zero becomes NaN, no bit is lost") {
  const auto step = [](Dtype dtype, std::vector<float> g, double g_scale) {
    const Tensor w = parameter({1, 1, 1}, {3}, dtype);
    optim::Sgd sgd({w}, {.lr = 1});
    set_gradient(w, std::move(g));
    sgd.step({.g_scale = g_scale});
    return w.to_vector();
  };
  CHECK(step(f32, {0, 0x1p-140f, 0x1.8p-140f}, 0x1p139) == std::vector<float>{1, 0.5f, 0.25f});
  CHECK(step(bf16, {0, 0x1p-132f, 0x1p-133f}, 0x1p131) == std::vector<float>{1, 0.5f, 0.75f});
  for (const Dtype dtype : {f32, bf16}) CHECK(step(dtype, {0, 0x1p120f, 0x1.8p126f}, 0x1p-127) == std::vector<float>{1, 1 - 0x1p-7f, 0.25f});
}

TEST_CASE("strided parameters and gradients: same elements, same bits as contiguous ones") {
  const std::vector<float> start = {1, 2, 3, 4, 5, 6}, g = {0.1f, -0.2f, 0.3f, -0.4f, 0.5f, -0.6f};
  for (const Dtype dtype : {f32, f64, bf16}) {
    CAPTURE(dtype);
    const Tensor plain = parameter(start, {2, 3}, dtype);
    const Tensor base = tensor(start, {2, 3}, {.dtype = dtype}).transpose(0, 1).contiguous();
    Tensor strided = base.transpose(0, 1);
    strided.requires_grad_();
    optim::AdamW one({plain}, {.lr = 0.1}), two({strided}, {.lr = 0.1});
    for (int step = 0; step < 3; ++step) {
      const Tensor gradient = tensor(g, {2, 3}, {.dtype = dtype});
      plain.set_grad(gradient);
      strided.set_grad(gradient.transpose(0, 1).contiguous().transpose(0, 1));
      one.step();
      two.step();
    }
    CHECK(bits(strided) == bits(plain));
    CHECK(bits(base.transpose(0, 1)) == bits(plain));  // the very elements
    CHECK(strided.version() == 3);
  }
}

TEST_CASE("f64 parameters keep f64 moments") {
  const Tensor w = parameter({1}, {1}, f64);
  optim::Adam adam({w});
  set_gradient(w, {1});
  adam.step();
  CHECK(named(adam.state().tensors, "exp_avg.0").dtype() == f64);
  CHECK(adam.bytes() == optim::OptimizerBytes{.weights = 8, .gradients = 8, .states = 16});
}

TEST_CASE("a bf16 parameter without masters is updated in f32 and rounded to nearest: small updates vanish") {
  const Tensor w = parameter({1, 1}, {1, 2}, bf16);
  optim::Sgd sgd({w}, {.lr = 1});
  for (int step = 0; step < 10; ++step) {
    set_gradient(w, {0x1p-10f, 0x1p-6f});
    sgd.step();
  }
  CHECK(w.dtype() == bf16);
  CHECK(w.to_vector() == std::vector<float>{1, 1 - 10 * 0x1p-6f});
}

TEST_CASE("the step rewrites a weight's cached 16-bit copy, and a graph that saved it is caught") {
  for (const Dtype low : {bf16, f16}) {
    const Tensor w = parameter({1.5f, -0.3f, 0.7f, 2}, {2, 2}), x = tensor({1, 2}, {1, 2});
    optim::AdamW adamw({w}, {.lr = 0.01});
    const amp::Autocast region(low);
    sum(linear(x, w)).backward();
    const Tensor copy = autograd::cached_cast(w, low);  // held: a remade copy would live elsewhere
    const auto version = copy.version();
    const Tensor y = sum(linear(x, w));
    adamw.step();
    CHECK(bits(copy) == bits(w.detach().to(low)));
    CHECK(copy.version() == version + 1);
    CHECK(autograd::cached_cast(w, low).impl()->storage == copy.impl()->storage);
    CHECK_ERROR(y.backward(), "changed in place");
  }
}
