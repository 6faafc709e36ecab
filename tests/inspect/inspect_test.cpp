// inspect_test.cpp - what the inspector says of tensors, models and updates, and where it says an overflow began.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include <mezzo/mezzo.h>

using namespace mezzo;
using inspect::Kind;
using inspect::Record;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

const Record* find(const std::vector<Record>& records, Kind kind, const std::string& module, const std::string& op = "") {
  const auto r = std::find_if(records.begin(), records.end(), [&](const Record& r) { return r.kind == kind && r.module == module && r.op == op; });
  return r == records.end() ? nullptr : &*r;
}

/// Two linear layers with a GELU between them, named "first" and "second".
struct Net : nn::Module {
  Net() {
    first = register_module("first", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 16}));
    second = register_module("second", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 16, .out = 4}));
  }
  Tensor forward(const Tensor& x) override { return (*second)(gelu((*first)(x))); }
  std::shared_ptr<nn::Linear> first, second;
};

}  // namespace

TEST_CASE("ranges: counts, extremes and exponents") {
  const Tensor t = tensor({0.0f, -0.0f, 1.0f, -1.5f, 0.25f, 1e-40f, kInf, -kInf, std::nanf("")}, {3, 3});
  const auto r = inspect::ranges(t);
  CHECK(r.count == 9);
  CHECK(r.zero == 2);
  CHECK(r.inf == 2);
  CHECK(r.nan == 1);
  CHECK(r.finite() == 6);
  CHECK(r.nonzero() == 4);
  CHECK(r.largest == 1.5);
  CHECK(r.smallest == 1e-40f);
  CHECK(r.first_exponent == -127);
  CHECK(r.exponents.back() == 2);  // 1 and 1.5
  CHECK(r.below(0) == 2);
  CHECK(r.below(-2) == 1);
  CHECK(inspect::ranges(t.transpose(0, 1)).exponents == r.exponents);
  CHECK(inspect::ranges(full({2}, 3.0, {.dtype = f64})).largest == 3);
  CHECK(inspect::ranges(zeros({0})).count == 0);
  CHECK_THROWS_WITH_AS(inspect::ranges(arange(3, {.dtype = i64})), doctest::Contains("a floating dtype wanted"), Error);
}

TEST_CASE("conversion: shares of the nonzero values, and the ratio to the error") {
  const Tensor t = tensor({0.0f, 1.0f, 0x1p-20f, 0x1p-30f, 70000.0f, 3.0f}, {6});
  const auto c = inspect::conversion(t, "fp16");
  CHECK(c.flushed == doctest::Approx(1.0 / 5));
  CHECK(c.subnormal == doctest::Approx(1.0 / 5));
  CHECK(c.saturated == doctest::Approx(1.0 / 5));
  CHECK(c.snr_db == doctest::Approx(20 * std::log10(std::sqrt(10 + 0x1p-40) / 0x1p-30)).epsilon(1e-6));
  CHECK(std::isinf(inspect::conversion(tensor({1.0f, 2.0f}, {2}), "fp8_e4m3").snr_db));
  CHECK_THROWS_WITH_AS(inspect::conversion(t, "fp9"), doctest::Contains("fp8_e4m3, fp8_e5m2"), Error);
  const Tensor q = inspect::round_to(tensor({1.0f, 1.06f, 1.0625f, 1.19f, 500.0f, -1e-9f}, {2, 3}), "fp8_e4m3");
  CHECK(q.shape() == Shape{2, 3});
  CHECK(q.to_vector() == std::vector<float>{1, 1, 1, 1.25, 448, -0.0f});
  CHECK(inspect::formats().size() == 10);
}

TEST_CASE("inspector: ops go by the module whose parameters they use, forward and backward") {
  manual_seed(3);
  Net net;
  inspect::Inspector inspector({.formats = {"fp16"}});
  {
    const auto watch = inspector.watch();
    for (int micro = 0; micro < 2; ++micro) {
      const amp::Autocast on(bf16);
      mul(mean(net(randn({5, 8}))), 100.0).backward();
    }
  }
  inspector.parameters(net);
  const auto records = inspector.take();
  const Record* w = find(records, Kind::weight, "first.weight");
  REQUIRE(w);
  CHECK(w->ranges.count == 16 * 8);
  CHECK(w->dtype == f32);
  CHECK(w->conversions.at(0).format == "fp16");
  CHECK(find(records, Kind::gradient, "second.bias")->ranges.count == 4);
  const Record* first = find(records, Kind::activation, "first", "linear");
  REQUIRE(first);
  CHECK(first->dtype == bf16);
  CHECK(first->ranges.count == 2 * 5 * 16);  // both micro-batches
  CHECK(find(records, Kind::activation, "first", "gelu"));
  CHECK(find(records, Kind::activation, "second", "mean"));
  const Record* dy = find(records, Kind::activation_gradient, "second", "linear");
  REQUIRE(dy);
  CHECK(dy->ranges.largest == doctest::Approx(100.0 / 20).epsilon(0.01));
  CHECK(find(records, Kind::activation_gradient, "first", "gelu"));
  CHECK(inspector.take().empty());
}

TEST_CASE("inspector: what is watched computes the same bits") {
  const auto train = [](bool watched) {
    manual_seed(5);
    Net net;
    inspect::Inspector inspector;
    std::optional<inspect::Inspector::Watch> watch;
    if (watched) watch.emplace(inspector);
    mean(net(randn({5, 8}))).backward();
    std::vector<float> all;
    for (const auto& w : net.parameters())
      for (const float g : w.grad().to_vector()) all.push_back(g);
    return all;
  };
  CHECK(train(true) == train(false));
}

TEST_CASE("updates: the share of elements that a step leaves as they were, whatever completes them") {
  const auto stalled = [](optim::Storage storage, double lr) {
    manual_seed(1);
    nn::Linear layer({.in = 64, .out = 64, .bias = false});
    {
      const autograd::NoGrad off;
      fill_(layer.weight, 1.0);
    }
    if (storage != optim::Storage::f32) layer.to(bf16);
    optim::Sgd sgd(layer.parameters(), {.lr = lr, .storage = storage});
    Tensor g = ones({64, 64}, {.dtype = layer.weight.dtype()});
    fill_(g.narrow(0, 0, 16), 0.0);  // a quarter has no gradient: it is not counted
    layer.weight.set_grad(g);
    inspect::Inspector inspector;
    inspector.before_update(sgd);
    sgd.step();
    inspector.after_update();
    const auto records = inspector.take();
    return find(records, Kind::update, "weight")->stalled.value();
  };
  CHECK(stalled(optim::Storage::f32, 1e-3) == 0);
  CHECK(stalled(optim::Storage::f32, 1e-9) == 1);
  CHECK(stalled(optim::Storage::pure, 1e-3) == 1);  // 1 - 0.001 is 1 in bf16
  CHECK(stalled(optim::Storage::pure, 0.1) == 0);
  CHECK(stalled(optim::Storage::master, 1e-3) == 0);  // the 16-bit copy stays, its master moves
  CHECK(stalled(optim::Storage::split, 1e-3) == 0);
  CHECK(stalled(optim::Storage::kahan, 1e-3) == 0);
}

TEST_CASE("overflow: the op in which it began, forward") {
  manual_seed(3);
  Net net;
  {
    const autograd::NoGrad off;
    fill_(net.second->weight, 60000.0);
  }
  const auto found = inspect::find_overflow([&] {
    const amp::Autocast on(f16);
    mean(net(full({5, 8}, 30.0))).backward();
  });
  REQUIRE(found);
  CHECK(found->module == "second");
  CHECK(found->op == "linear");
  CHECK_FALSE(found->backward);
  CHECK_FALSE(found->nan);
  CHECK(found->dtype == f16);
  REQUIRE(found->inputs.size() == 3);
  CHECK(found->inputs[1].largest == 60000);
  REQUIRE(found->before.size() == 2);
  CHECK(found->before[0] == "first linear");
  CHECK(found->before[1] == "first gelu");
}

TEST_CASE("overflow: the op in which it began, backward, and none where all is finite") {
  manual_seed(3);
  Net net;
  const auto step = [&](double scale) {
    return inspect::find_overflow([&] {
      const amp::Autocast on(f16);
      mul(sum(net(ones({5, 8})), {.dtype = f32}), scale).backward();
    });
  };
  CHECK_FALSE(step(1));
  net.zero_grad();
  {
    const autograd::NoGrad off;
    fill_(net.second->weight, 1000.0);
  }
  const auto found = step(100);  // dy 100, times 1000, summed over 4 outputs: beyond 65504
  REQUIRE(found);
  CHECK(found->module == "second");
  CHECK(found->op == "linear");
  CHECK(found->backward);
  CHECK(found->dtype == f16);
  REQUIRE_FALSE(found->inputs.empty());
  CHECK(found->inputs[0].largest == 100);
}

TEST_CASE("overflow: finite gradients that are not in the dtype they are rounded to") {
  manual_seed(3);
  Net net;
  const auto found = inspect::find_overflow([&] {
    const amp::Autocast on(f16);
    mul(sum(net(ones({5, 8})), {.dtype = f32}), 1e6).backward();
  });
  REQUIRE(found);
  CHECK(found->module == "second");
  CHECK(found->op == "linear");
  CHECK(found->backward);
  CHECK(found->arrived);
  CHECK(found->dtype == f16);
}

TEST_CASE("inspector: bad options") {
  CHECK_THROWS_WITH_AS(inspect::Inspector({.formats = {"int4"}}), doctest::Contains("int4"), Error);
  CHECK_THROWS_WITH_AS(inspect::Inspector({.sample = 0}), doctest::Contains("1 or more"), Error);
}
