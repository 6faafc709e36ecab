// The scale: how it is multiplied in, how it moves, its limits, its state. Names of PyTorch's tests in brackets.
#include <cmath>
#include <limits>

#include <mezzo/amp.h>
#include <mezzo/autograd.h>
#include <mezzo/ops.h>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::GradScaler;
using amp::GradScalerOptions;
using amp::GradScalerState;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// One parameter whose gradient is set by hand; an iteration with a clean one, or with one that holds Inf.
struct Iteration {
  Tensor w = parameter({1}, {1});
  optim::Sgd sgd{std::vector{w}, {.lr = 0}};

  amp::StepResult step(GradScaler& s, float g) {
    s.scale(w);
    set_gradient(w, {g});
    return s.step(sgd);
  }
  void clean(GradScaler& s, int times = 1) {
    for (int i = 0; i < times; ++i) {
      step(s, 1);
      s.update();
    }
  }
  void overflow(GradScaler& s, int times = 1) {
    for (int i = 0; i < times; ++i) {
      step(s, kInf);
      s.update();
    }
  }
};

}  // namespace

TEST_CASE("scale() multiplies in f32, f64 stays f64 [test_grad_scaling_scale]") {
  GradScaler s({.init_scale = 8});
  CHECK(s.scale(full({}, 2)).item() == 16);
  const auto many = s.scale(std::vector{full({2}, 2), full({}, 3), full({1}, 4, {.dtype = f64})});
  CHECK(many[0].to_vector() == std::vector<float>{16, 16});
  CHECK(many[1].item() == 24);
  CHECK(many[2].dtype() == f64);
  CHECK(many[2].item() == 32);
  CHECK(s.scale(tensor({1, 2, 3, 4}, {2, 2}).transpose(0, 1)).to_vector() == std::vector<float>{8, 24, 16, 32});
}

TEST_CASE("a 16-bit loss, 0-dim or not, does not overflow when scaled") {
  GradScaler s;
  for (const Dtype dtype : {f16, bf16})
    for (const Shape& shape : {Shape{}, Shape{1}}) {
      const Tensor scaled = s.scale(full(shape, 2, {.dtype = dtype}));
      CHECK(scaled.dtype() == f32);
      CHECK(scaled.item() == 131072);
    }
}

TEST_CASE("scaling is differentiable, twice") {
  GradScaler s({.init_scale = 8});
  const Tensor x = full({}, 3, {.requires_grad = true});
  const auto first = autograd::grad({s.scale(x * x)}, {x}, {.create_graph = true});
  CHECK(first[0].item() == 48);  // 8 * 2x
  CHECK(autograd::grad({first[0]}, {x})[0].item() == 16);
}

TEST_CASE("the scale grows after growth_interval clean iterations and backs off at once [test_grad_scaling_update_scale]") {
  GradScaler s({.init_scale = 4, .growth_factor = 2, .backoff_factor = 0.25, .growth_interval = 2});
  Iteration it;
  it.clean(s);
  CHECK(s.get_scale() == 4);
  CHECK(s.state().growth_tracker == 1);
  it.clean(s);
  CHECK(s.get_scale() == 8);
  CHECK(s.state().growth_tracker == 0);
  it.overflow(s);
  CHECK(s.get_scale() == 2);
  CHECK(s.state().growth_tracker == 0);
}

TEST_CASE("growth that would overflow f32 is left out, and the interval begins anew [test_grad_scale_will_not_overflow]") {
  GradScaler s({.init_scale = 1e38, .growth_factor = 16, .growth_interval = 1});
  Iteration it;
  it.clean(s, 3);
  CHECK(s.get_scale() == static_cast<double>(1e38f));
  CHECK(s.state().growth_tracker == 0);
}

TEST_CASE("a scale beyond a limit becomes that limit") {
  Iteration it;
  GradScaler s({.init_scale = 1024, .growth_interval = 1, .min_scale = 128, .max_scale = 3000});
  it.clean(s, 2);
  CHECK(s.get_scale() == 3000);
  it.overflow(s, 10);
  CHECK(s.get_scale() == 128);
  s.update(1);
  CHECK(s.get_scale() == 128);
  s.update(1e9);
  CHECK(s.get_scale() == 3000);
  s.update(std::numeric_limits<double>::infinity());
  CHECK(s.get_scale() == 3000);
  CHECK(GradScaler({.init_scale = 1, .min_scale = 16}).get_scale() == 16);
  CHECK(GradScaler({.init_scale = 1e6, .max_scale = 0x1p15}).get_scale() == 32768);
}

TEST_CASE("without a floor the scale may fall below 1, but never to 0") {
  GradScaler s({.init_scale = 2});
  Iteration it;
  it.overflow(s, 3);
  CHECK(s.get_scale() == 0.25);
  it.overflow(s, 200);
  CHECK(s.get_scale() == 0x1p-149);
}

TEST_CASE("hysteresis: the first H - 1 overflows since the last growth do not back off, then each does") {
  GradScaler s({.init_scale = 1024, .growth_interval = 3, .hysteresis = 3});
  Iteration it;
  it.overflow(s, 2);
  CHECK(s.get_scale() == 1024);
  it.clean(s, 2);  // clean iterations alone do not refill it
  it.overflow(s);
  CHECK(s.get_scale() == 512);
  it.overflow(s);
  CHECK(s.get_scale() == 256);
  it.clean(s, 3);
  CHECK(s.get_scale() == 512);
  it.overflow(s, 2);
  CHECK(s.get_scale() == 512);
  it.overflow(s);
  CHECK(s.get_scale() == 256);
}

TEST_CASE("a constant scale skips overflows and stays") {
  GradScaler s({.init_scale = 512, .growth_interval = 1, .dynamic = false});
  Iteration it;
  it.clean(s, 3);
  CHECK_FALSE(it.step(s, kInf).applied);
  s.update();
  CHECK(s.get_scale() == 512);
  GradScaler other;
  other.load_state(s.state());
  it.overflow(other);
  CHECK(other.get_scale() == 512);
}

TEST_CASE("update(new_scale) sets the scale and leaves the tracker") {
  GradScaler s({.init_scale = 4, .growth_interval = 100});
  Iteration it;
  it.clean(s, 3);
  it.step(s, 1);
  s.update(7);
  CHECK(s.get_scale() == 7);
  CHECK(s.state().growth_tracker == 3);
  for (const double bad : {0.0, -1.0, std::nan("")}) CHECK_ERROR(s.update(bad), "[GradScaler]", "new_scale");
  CHECK(s.get_scale() == 7);
}

TEST_CASE("scale, trackers and step by step numbers of f16 training [test_graph_grad_scaling]") {
  const Tensor weight = ones({100}, {.requires_grad = true}), input = ones({100}, {.dtype = f16});
  optim::Sgd sgd({weight}, {.lr = 0.1});
  GradScaler s({.init_scale = 4});
  const std::vector<float> inputs = {5, 20000, 5, 40000}, scales = {4, 2, 2, 1}, gradients = {20, kInf, 10, kInf};
  const std::vector<int> trackers = {1, 0, 1, 0};
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    sgd.zero_grad();
    fill_(input, inputs[i]);
    s.scale(sum(weight.to(f16) * input)).backward();
    CHECK(weight.grad().dtype() == f32);
    for (const float g : weight.grad().to_vector()) CHECK(g == gradients[i]);
    CHECK(s.step(sgd).applied == std::isfinite(gradients[i]));
    s.update();
    CHECK(s.get_scale() == scales[i]);
    CHECK(s.state().growth_tracker == trackers[i]);
  }
}

TEST_CASE("state goes in and out, before and after the first scale() [test_grad_scaling_state_dict]") {
  for (const bool used : {false, true}) {
    GradScaler from({.init_scale = 3, .growth_factor = 4, .backoff_factor = 0.5, .growth_interval = 2});
    GradScaler to({.init_scale = 6, .growth_factor = 7, .backoff_factor = 0.8, .growth_interval = 1000});
    Iteration it;
    if (used) it.clean(to, 7);
    to.load_state(from.state());
    CHECK(to.state() == from.state());
    CHECK(to.get_scale() == 3);
    CHECK(to.state().growth_factor == 4);
    CHECK(to.state().growth_interval == 2);
    CHECK(to.state().growth_tracker == 0);
    it.clean(to, 2);
    CHECK(to.get_scale() == 12);
  }
}

TEST_CASE("a state carries all that decides [test_pickle_gradscaler]") {
  const GradScalerOptions options{
      .init_scale = 3, .growth_interval = 5, .min_scale = 0.5, .max_scale = 64, .hysteresis = 2, .max_consecutive_skips = 9};
  GradScaler a(options), b;
  Iteration it;
  it.clean(a, 2);
  it.overflow(a);
  b.load_state(a.state());
  CHECK(b.scale(full({}, 4)).item() == 12);
  for (int i = 0; i < 40; ++i) {
    i % 7 == 3 ? it.overflow(a) : it.clean(a);
    i % 7 == 3 ? it.overflow(b) : it.clean(b);
    CHECK(a.state() == b.state());
  }
}

TEST_CASE("states that cannot be are refused and change nothing") {
  GradScaler s({.init_scale = 4});
  const auto good = s.state();
  const auto refuse = [&](auto change, const char* part) {
    auto bad = good;
    change(bad);
    CHECK_ERROR(s.load_state(bad), "[GradScaler]", part);
    CHECK(s.state() == good);
  };
  refuse([](auto& x) { x = GradScalerState{}; }, "disabled scaler");
  refuse([](auto& x) { x.scale = -1; }, "scale = -1");
  refuse([](auto& x) { x.scale = NAN; }, "scale = nan");
  refuse([](auto& x) { x.growth_factor = 1; }, "growth_factor = 1");
  refuse([](auto& x) { x.hysteresis_tracker = 2; }, "hysteresis_tracker = 2");
  refuse([](auto& x) { x.consecutive_skips = -1; }, "consecutive_skips = -1");
}

TEST_CASE("a disabled scaler is inert") {
  GradScaler s({.enabled = false});
  const Tensor w = parameter({1}, {1}), loss = full({}, 2, {.dtype = f16});
  optim::Sgd sgd({w}, {.lr = 0.5});
  CHECK_FALSE(s.is_enabled());
  CHECK(s.get_scale() == 1);
  CHECK(s.scale(loss).impl() == loss.impl());
  set_gradient(w, {1});
  s.unscale(sgd);
  for (int i = 0; i < 2; ++i) {
    const auto r = s.step(sgd);
    CHECK(r.applied);
    CHECK(r.scale == 1);
  }
  CHECK(w.item() == 0);
  s.update();
  s.update(3);
  CHECK(s.get_scale() == 1);
  CHECK(s.state() == GradScalerState{});
  s.load_state(GradScaler({.init_scale = 9}).state());
  CHECK(s.get_scale() == 1);
}

TEST_CASE("options outside their range are named") {
  CHECK_ERROR(GradScaler({.init_scale = 0}), "[GradScaler]", "init_scale = 0");
  CHECK_ERROR(GradScaler({.init_scale = NAN}), "init_scale = nan");
  CHECK_ERROR(GradScaler({.growth_factor = 1}), "growth_factor = 1");
  CHECK_ERROR(GradScaler({.backoff_factor = 1}), "backoff_factor = 1");
  CHECK_ERROR(GradScaler({.backoff_factor = 0}), "backoff_factor = 0");
  CHECK_ERROR(GradScaler({.growth_interval = 0}), "growth_interval = 0", ".dynamic = false");
  CHECK_ERROR(GradScaler({.min_scale = -1}), "min_scale = -1");
  CHECK_ERROR(GradScaler({.min_scale = 8, .max_scale = 4}), "max_scale = 4");
  CHECK_ERROR(GradScaler({.max_scale = 1e40}), "max_scale = 1e+40");
  CHECK_ERROR(GradScaler({.hysteresis = 0}), "hysteresis = 0");
  CHECK_ERROR(GradScaler({.max_consecutive_skips = -1}), "max_consecutive_skips = -1");
}
