// Unscaling and checking gradients: layouts, dtypes, extreme scales, clipping in the same pass. Names of PyTorch's tests in brackets.
#include <cmath>
#include <limits>

#include <mezzo/amp.h>
#include <mezzo/autograd.h>
#include <mezzo/ops.h>

#include "optim/helpers.h"
#include "tensor/impl.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::GradScaler;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

GradScaler ready(double scale) {
  GradScaler s({.init_scale = scale});
  s.scale(full({}, 1));
  return s;
}

void write(const Tensor& t, std::int64_t i, std::int64_t j, double value) { fill_(t.select(0, i).select(0, j), value); }

}  // namespace

TEST_CASE("gradients of 4 become 1 in every layout, Inf and NaN at [2, 2] are found [test_grad_scaling_unscale]") {
  using Layout = Tensor (*)(const Tensor&);
  const std::vector<Layout> layouts = {
      [](const Tensor& g) { return g; }, [](const Tensor& g) { return g.transpose(0, 1); }, [](const Tensor& g) { return g.narrow(1, 0, 5); },
      [](const Tensor& g) { return g.narrow(1, 0, 5).transpose(0, 1); }, [](const Tensor& g) { return g.narrow(0, 3, 9).narrow(1, 4, 7); }};
  for (const Dtype dtype : {f32, f64, bf16})
    for (const auto& layout : layouts)
      for (const float poison : {4.0f, kInf, kNaN}) {
        const Tensor whole = full({20, 20}, 4, {.dtype = dtype}), g = layout(whole);
        const Tensor w = zeros(g.shape(), {.dtype = dtype, .requires_grad = true});
        write(g, 2, 2, poison);
        w.set_grad(g);
        optim::Sgd sgd({w});
        auto scaler = ready(4);
        scaler.unscale(sgd);
        CHECK(w.grad().impl() == g.impl());  // in place
        const auto r = scaler.step(sgd);
        CHECK(r.applied == (poison == 4));
        CHECK(r.found_inf == std::isinf(poison));
        CHECK(r.found_nan == std::isnan(poison));
        if (poison != 4) continue;
        for (const float x : g.to_vector()) CHECK(x == 1);
        double total = 0;
        for (const float x : whole.to_vector()) total += x;
        CHECK(total == static_cast<double>(4 * 400 - 3 * g.numel()));  // nothing beside the view was touched
      }
}

TEST_CASE("one optimizer, several dtypes [test_grad_scaling_unscale, mixed dtypes]") {
  std::vector<Tensor> params;
  for (const Dtype dtype : {f32, f64, bf16}) {
    params.push_back(zeros({2, 2}, {.dtype = dtype, .requires_grad = true}));
    set_gradient(params.back(), {4, 4, 4, 4});
  }
  optim::Sgd sgd(params, {.lr = 1});
  auto scaler = ready(4);
  CHECK(scaler.step(sgd).grad_norm == doctest::Approx(std::sqrt(12.0)));
  for (const auto& w : params) CHECK(w.to_vector() == std::vector<float>(4, -1));
}

TEST_CASE("perfect storm: an Inf in any one of many gradients is found, and found there [test_grad_scaling_unscale]") {
  std::vector<Tensor> params;
  for (int i = 0; i < 12; ++i) params.push_back(zeros({i % 3 + 1, 17}, {.dtype = i % 4 == 3 ? bf16 : f32, .requires_grad = true}));
  for (const bool unscale_first : {false, true})
    for (std::size_t bad = 0; bad <= params.size(); ++bad) {
      for (std::size_t i = 0; i < params.size(); ++i) {
        const Tensor g = full(params[i].shape(), 4, {.dtype = params[i].dtype()});
        if (i == bad) write(g, 0, 16, kInf);
        params[i].set_grad(g);
      }
      optim::Sgd sgd(params);
      auto scaler = ready(4);
      if (unscale_first) scaler.unscale(sgd);
      const auto r = scaler.step(sgd);
      CHECK(r.applied == (bad == params.size()));
      CHECK(r.culprit == (r.applied ? "" : "param[" + std::to_string(bad) + "]"));
      CHECK_FALSE(r.found_nan);
    }
}

TEST_CASE("with and without unscale() a step gives the same bits, of weights, masters and moments [test_grad_scaling_autocast_fused_optimizers]") {
  for (const Dtype low : {bf16, f16})
    for (const auto storage : {optim::Storage::f32, optim::Storage::master}) {
      std::vector<StateDict> ends;
      for (const bool unscale_first : {false, true}) {
        Generator rng(3);
        const Tensor w = randn({9, 7}, rng).requires_grad_(), added_up = randn({5, 3}, rng).requires_grad_();
        optim::AdamW adamw({w, added_up}, {.lr = 0.1, .storage = storage, .low = low});
        auto scaler = ready(1024);
        for (int step = 0; step < 3; ++step) {
          w.set_grad(randn({9, 7}, rng).to(w.dtype()));
          added_up.impl()->more().grad = randn({5, 3}, rng);  // f32, whatever the weight is
          if (unscale_first) scaler.unscale(adamw);
          CHECK(scaler.step(adamw).applied);
          scaler.update();
        }
        ends.push_back(adamw.state().tensors);
        ends.back().emplace_back("w", w);
        ends.back().emplace_back("added_up", added_up);
      }
      for (std::size_t i = 0; i < ends[0].size(); ++i) CHECK_MESSAGE(bits(ends[0][i].second) == bits(ends[1][i].second), ends[0][i].first);
    }
}

TEST_CASE("an f16 gradient is unscaled into f32: 2^-24 over 65536 does not vanish") {
  const Tensor w = parameter({1, 1}, {1, 2});
  optim::Sgd sgd({w}, {.lr = 0x1p40, .storage = optim::Storage::master, .low = f16});
  set_gradient(w, {0x1p-24f, 1});
  auto scaler = ready(65536);
  scaler.unscale(sgd);
  CHECK(w.grad().dtype() == f32);
  CHECK(w.grad().to_vector() == std::vector<float>{0x1p-40f, 0x1p-16f});
  CHECK(scaler.step(sgd).applied);
  CHECK(named(sgd.state().tensors, "master.0").to_vector() == std::vector<float>{0, 1 - 0x1p24f});
}

TEST_CASE("a sum of gradients that f32 holds and f16 does not is an overflow of an f16 weight [test_grad_scaling_unscale_sparse]") {
  for (const bool unscale_first : {false, true}) {
    const Tensor w = parameter({1, 1}, {1, 2});
    optim::Sgd sgd({w}, {.storage = optim::Storage::master, .low = f16});
    w.impl()->more().grad = tensor({64000 + 64000, 1}, {1, 2});  // [test_grad_scaling_unscale_sparse: 64000 twice at one index]
    auto scaler = ready(4);
    if (unscale_first) scaler.unscale(sgd);
    const auto r = scaler.step(sgd);
    CHECK_FALSE(r.applied);
    CHECK(r.found_inf);
    CHECK(w.to_vector() == std::vector<float>{1, 1});
  }
}

TEST_CASE("an unscaled value that overflows is an overflow, though the scaled one was finite") {
  const Tensor w = parameter({1}, {1});
  optim::Sgd sgd({w});
  set_gradient(w, {1e38f});
  auto scaler = ready(1.0 / 16);
  const auto r = scaler.step(sgd);
  CHECK_FALSE(r.applied);
  CHECK(r.found_inf);
}

TEST_CASE("a scale without an f32 reciprocal: zeros stay zeros, the rest is exact") {
  for (const bool unscale_first : {false, true})
    for (const double scale : {0x1p-130, 0x1p-149, 0x1p127}) {
      CAPTURE(scale);
      const Tensor w = parameter({1, 1}, {2});
      optim::Sgd sgd({w}, {.lr = 0.5});
      GradScaler scaler({.init_scale = scale, .max_scale = 0x1p127});
      scaler.scale(sum(w * tensor({0, 1}, {2}))).backward();
      CHECK(w.grad().to_vector()[1] == scale);
      if (unscale_first) scaler.unscale(sgd);
      const auto r = scaler.step(sgd);
      CHECK(r.applied);
      CHECK(r.grad_norm == 1);
      CHECK(w.to_vector() == std::vector<float>{1, 0.5f});
    }
}

TEST_CASE("a multiplier undoes what the loss was divided by: norm, clipping and step see gradients of the usual size") {
  for (const bool unscale_first : {false, true})
    for (const bool enabled : {true, false}) {
      const Tensor w = parameter({0, 0}, {2});
      optim::Sgd sgd({w}, {.lr = 1});
      GradScaler scaler({.init_scale = 1024, .enabled = enabled});
      const auto s = static_cast<float>(scaler.get_scale()) / 512;
      scaler.scale(w);
      set_gradient(w, {3 * s, 4 * s});
      if (unscale_first) scaler.unscale(sgd);
      const auto r = scaler.step(sgd, {.measure = true, .multiplier = 512});
      CHECK(r.grad_norm == 5);
      CHECK(w.to_vector() == std::vector<float>{-3, -4});
      CHECK_ERROR(scaler.step(sgd, {.multiplier = 0}), "multiplier = 0");
    }
}

TEST_CASE("clip_norm: of the unscaled gradients, by torch's factor, in the pass of the step") {
  for (const bool unscale_first : {false, true})
    for (const bool enabled : {true, false}) {
      const Tensor a = parameter({0, 0}, {2}), b = parameter({0}, {1});
      optim::Sgd sgd({a, b}, {.lr = 1});
      GradScaler scaler({.init_scale = 1024, .enabled = enabled});
      const auto s = static_cast<float>(scaler.get_scale());
      scaler.scale(a);
      set_gradient(a, {3 * s, 0});
      set_gradient(b, {4 * s});
      if (unscale_first) scaler.unscale(sgd);
      const auto r = scaler.step(sgd, {.clip_norm = 2.5});
      CHECK(r.grad_norm == 5);
      CHECK(r.zero_fraction == doctest::Approx(1.0 / 3));
      CHECK(a.to_vector()[0] == doctest::Approx(-3 * 2.5 / (5 + 1e-6)).epsilon(1e-6));
      CHECK(b.item() == doctest::Approx(-4 * 2.5 / (5 + 1e-6)).epsilon(1e-6));
    }
}

TEST_CASE("a norm below clip_norm changes no bit") {
  const Tensor a = parameter({0.1f, 0.2f}, {2}), b = parameter({0.1f, 0.2f}, {2});
  optim::AdamW one({a}), two({b});
  auto s = ready(128);
  set_gradient(a, {0.3f, 0.4f});
  set_gradient(b, {0.3f, 0.4f});
  s.step(one, {.clip_norm = 1});
  s.step(two);
  CHECK(bits(a) == bits(b));
}

TEST_CASE("a norm that overflows, though no element does, cannot be clipped: f64") {
  const Tensor w = parameter({1, 1}, {2}, f64);
  optim::Sgd sgd({w});
  const Tensor g = full({2}, 1e200, {.dtype = f64});
  w.set_grad(g);
  auto scaler = ready(1);
  const auto r = scaler.step(sgd, {.clip_norm = 1});
  CHECK_FALSE(r.applied);
  CHECK(r.found_inf);
  CHECK(std::isinf(optim::clip_grad_norm({w}, 1)));
  CHECK(g.data<double>()[0] == 1e200);
}

TEST_CASE("a disabled scaler that clips or measures does not step over Inf and NaN; one that does neither is blind") {
  for (const auto& options : {amp::StepOptions{.clip_norm = 1}, amp::StepOptions{.measure = true}, amp::StepOptions{}}) {
    const Tensor w = parameter({1, 1}, {2});
    optim::Sgd sgd({w}, {.lr = 1});
    GradScaler off({.enabled = false});
    set_gradient(w, {kNaN, 1});
    const auto r = off.step(sgd, options);
    const bool looks = options.clip_norm > 0 || options.measure;
    CHECK(r.applied == !looks);
    CHECK(r.found_nan == looks);
    CHECK(r.culprit == (looks ? "param[0]" : ""));
    CHECK(w.to_vector()[1] == (looks ? 1 : 0));
  }
  const Tensor w = parameter({1, 1}, {2});
  optim::Sgd sgd({w}, {.lr = 1});
  GradScaler off({.enabled = false});
  set_gradient(w, {0, 2});
  const auto r = off.step(sgd, {.measure = true});
  CHECK(r.applied);
  CHECK(r.grad_norm == 2);
  CHECK(r.zero_fraction == 0.5);
}

TEST_CASE("zero_fraction counts what a 16-bit gradient lost") {
  const Tensor w = ones({4, 25}, {.requires_grad = true});
  optim::Sgd sgd({w}, {.storage = optim::Storage::master, .low = f16});
  std::vector<float> g(100, 1e-3f);
  for (std::size_t i = 0; i < 30; ++i) g[i * 3] = 1e-9f;  // below f16's 2^-25
  set_gradient(w, g);
  auto scaler = ready(1);
  CHECK(scaler.step(sgd).zero_fraction == doctest::Approx(0.3));
  scaler.update();
  w.set_grad({});
  w.impl()->more().grad = tensor(g, {4, 25});  // an f32 buffer is counted as the f16 gradient it stands for
  CHECK(scaler.step(sgd).zero_fraction == doctest::Approx(0.3));
}
