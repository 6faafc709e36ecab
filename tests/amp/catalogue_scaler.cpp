// The gradient scaler's half of PyTorch's AMP tests that test_scale, test_state_machine, test_gradients and test_recipes do not hold, and every
// misuse: what it says, and that it leaves scaler, optimizer, parameters and gradients as they were.
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include <mezzo/mezzo.h>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::GradScaler;
using amp::GradScalerOptions;
using amp::GradScalerState;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

using Bits = std::vector<std::uint64_t>;

/// Everything that can be seen of an iteration, to the bit.
struct Snapshot {
  double scale = 0;
  std::int64_t steps = 0;
  std::vector<Bits> tensors;            // parameters, gradients, moments, masters
  std::vector<std::uint64_t> versions;  // of the parameters
  bool operator==(const Snapshot&) const = default;
};

/// Two parameters under a rule, in the middle of training: one clean step is behind.
struct Training {
  Tensor a = parameter({1, 2, 3, 4}, {2, 2}), b = parameter({5}, {1});
  std::unique_ptr<optim::Optimizer> optimizer;
  GradScaler scaler{GradScalerOptions{.init_scale = 4, .growth_interval = 3}};

  explicit Training(bool masters) {
    const optim::NamedParameters p{{"a", a}, {"b", b}};
    if (masters) optimizer = std::make_unique<optim::AdamW>(p, optim::AdamWOptions{.lr = 0.5, .storage = optim::Storage::master, .low = f16});
    else optimizer = std::make_unique<optim::Sgd>(p, optim::SgdOptions{.lr = 0.5, .momentum = 0.9});
    gradients(4);
    scaler.scale(b);
    scaler.step(*optimizer);
    scaler.update();
    gradients(8);
  }
  void gradients(float g) {
    set_gradient(a, {g, 2 * g, g, g});
    set_gradient(b, {-g});
  }
  Snapshot snapshot() const {
    Snapshot s{scaler.get_scale(), optimizer->steps(), {}, {a.version(), b.version()}};
    for (const auto& t : {a, b, a.grad(), b.grad()}) s.tensors.push_back(t.defined() ? bits(t) : Bits{});
    for (const auto& [name, t] : optimizer->state().tensors) s.tensors.push_back(bits(t));
    return s;
  }
};

struct Misuse {
  const char* what;
  std::function<void(Training&)> before, misuse, after;  // after: ends the iteration, as if nothing had been
  std::vector<const char*> says;
};

const auto kStepAndUpdate = [](Training& t) {
  t.scaler.step(*t.optimizer);
  t.scaler.update();
};
const auto kUpdate = [](Training& t) { t.scaler.update(); };
const auto kNothing = [](Training&) {};

const std::vector<Misuse>& misuses() {
  const auto unscale = [](Training& t) { t.scaler.unscale(*t.optimizer); };
  const auto step = [](Training& t) { t.scaler.step(*t.optimizer); };
  const auto fresh = [](Training& t) { t.scaler = GradScaler({.init_scale = 4}); };
  const auto use_and_finish = [](Training& t) {
    t.scaler.scale(t.b);
    t.scaler.step(*t.optimizer);
    t.scaler.update();
  };
  static const std::vector<Misuse> all{
      // section 2.3: the order of calls
      {"unscale twice", unscale, unscale, kStepAndUpdate, {"unscale() given a second time", "unscaled already"}},
      {"unscale after step", step, unscale, kUpdate, {"unscale() given after step()", "between backward() and step()"}},
      {"step twice", step, step, kUpdate, {"step() given a second time", "call update() once at the end of each iteration"}},
      {"unscale before scale", fresh, unscale, use_and_finish, {"unscale() given before any scale()", "scale(loss).backward()"}},
      {"step before scale", fresh, step, use_and_finish, {"step() given before any scale()", "scale(loss).backward()"}},
      {"update before scale", fresh, kUpdate, use_and_finish, {"update() given before any scale()", "scale(loss).backward()"}},
      {"update(number) before scale", fresh, [](Training& t) { t.scaler.update(2); }, use_and_finish, {"update() given before any scale()"}},
      {"state in the middle", unscale, [](Training& t) { t.scaler.state(); }, kStepAndUpdate, {"state() given between", "after update()"}},
      {"load_state in the middle",
       unscale,
       [](Training& t) { t.scaler.load_state(GradScaler().state()); },
       kStepAndUpdate,
       {"load_state() given between", "end the iteration with update()"}},
      {"a closure",
       kNothing,
       [](Training& t) { t.scaler.step(*t.optimizer, [&] { return t.a; }); },
       kStepAndUpdate,
       {"a closure given to step()", "no Inf could be seen", "run scale(loss).backward() first"}},
      // section 2.6: update
      {"update without a check", kNothing, kUpdate, kStepAndUpdate, {"no gradient was checked", "call step(optimizer) before it"}},
      {"new_scale 0", step, [](Training& t) { t.scaler.update(0); }, kUpdate, {"new_scale = 0", "above 0 wanted", "update() without a number"}},
      {"new_scale negative", step, [](Training& t) { t.scaler.update(-3); }, kUpdate, {"new_scale = -3", "update() without a number"}},
      {"new_scale NaN", step, [](Training& t) { t.scaler.update(kNaN); }, kUpdate, {"new_scale = nan", "update() without a number"}},
      // what goes in
      {"scale of nothing", kNothing, [](Training& t) { t.scaler.scale(Tensor()); }, kStepAndUpdate, {"undefined"}},
      {"scale of integers, after a good one",
       kNothing,
       [](Training& t) {
         t.scaler.scale(std::vector{t.b, arange(3, {.dtype = i64})});
       },
       kStepAndUpdate,
       {"i64 given to scale()", "scale the loss"}},
      {"clip_norm negative",
       kNothing,
       [](Training& t) { t.scaler.step(*t.optimizer, {.clip_norm = -1}); },
       kStepAndUpdate,
       {"clip_norm = -1", "total norm of the unscaled gradients"}},
      {"clip_norm NaN", kNothing, [](Training& t) { t.scaler.step(*t.optimizer, {.clip_norm = kNaN}); }, kStepAndUpdate, {"clip_norm = nan"}},
      {"an optimizer that refuses its groups",
       [](Training& t) { t.optimizer->groups()[0].lr = -1; },
       step,
       [](Training& t) {
         t.optimizer->groups()[0].lr = 0.5;
         kStepAndUpdate(t);
       },
       {"lr = -1"}},
      {"an empty state",
       kNothing,
       [](Training& t) { t.scaler.load_state(GradScaler({.enabled = false}).state()); },
       kStepAndUpdate,
       {"an empty state given", "disabled scaler"}},
  };
  return all;
}

}  // namespace

TEST_CASE("every misuse is an Error that says what to do and changes nothing: the iteration ends as it would have") {
  for (const bool masters : {false, true})
    for (const auto& m : misuses()) {
      const std::string what = m.what;
      CAPTURE(what);
      Training one(masters), two(masters);
      m.before(one);
      m.before(two);
      const Snapshot before = one.snapshot();
      const std::string message = error_of([&] { m.misuse(one); });
      CHECK(contains(message, "["));
      for (const char* part : m.says) CHECK_MESSAGE(contains(message, part), message);
      CHECK(one.snapshot() == before);
      m.after(one);
      m.after(two);
      CHECK(one.snapshot() == two.snapshot());
      CHECK(one.scaler.state() == two.scaler.state());
    }
}

TEST_CASE("update(new_scale) takes any number [extra: int new_scale]") {
  Training t(false);
  t.scaler.step(*t.optimizer);
  t.scaler.update(3);
  CHECK(t.scaler.get_scale() == 3);
  CHECK(t.scaler.state().growth_tracker == 1);  // not its business
}

TEST_CASE("many overflows in one optimizer are one skip [extra: two overflowing devices in one fused optimizer]") {
  Training t(true);
  set_gradient(t.a, {kInf, kInf, 1, 1});
  set_gradient(t.b, {-kInf});
  const Snapshot before = t.snapshot();
  const auto r = t.scaler.step(*t.optimizer);
  CHECK((!r.applied && r.found_inf && !r.found_nan && r.culprit == "a"));
  CHECK(t.snapshot() == before);
  t.scaler.update();
  CHECK(t.scaler.get_scale() == 2);
}

TEST_CASE("no gradients at all: a clean step, not an assertion [extra: optimizer with zero grads]") {
  Training t(false);
  t.optimizer->zero_grad();
  const auto bits_before = bits(t.a);
  CHECK(t.scaler.step(*t.optimizer).applied);
  CHECK_NOTHROW(t.scaler.update());
  CHECK(bits(t.a) == bits_before);
}

TEST_CASE("some parameters without gradients are no matter, and stay [extra: optimizer with zero grads]") {
  Training t(false);
  t.b.set_grad({});
  const auto b = bits(t.b);
  const auto a = bits(t.a);
  CHECK(t.scaler.step(*t.optimizer).applied);
  CHECK(bits(t.b) == b);
  CHECK(bits(t.a) != a);
}

TEST_CASE("found_inf is looked for again at step(), after unscale() as well [extra: found_inf recheck option]") {
  for (const float bad : {kInf, kNaN}) {
    Training t(false);
    t.scaler.unscale(*t.optimizer);
    fill_(t.b.grad(), bad);
    const auto before = bits(t.a);
    const auto r = t.scaler.step(*t.optimizer);
    CHECK((!r.applied && r.culprit == "b" && r.found_nan == std::isnan(bad)));
    CHECK(bits(t.a) == before);
  }
}

TEST_CASE("the scale at both ends of f32, up and down again [extra: scale floor / scale -> 0]") {
  const Tensor w = parameter({1, 1}, {2}), x = tensor({0, 1}, {2});
  optim::Sgd sgd({w}, {.lr = 0});
  GradScaler s({.init_scale = 1, .growth_interval = 1});
  const auto iterate = [&](bool overflow) {
    sgd.zero_grad();
    s.scale(sum(w * x)).backward();
    if (overflow) fill_(w.grad(), kInf);
    const auto r = s.step(sgd);
    CHECK(r.applied == !overflow);
    CHECK(std::isnan(r.grad_norm) == false);
    if (!overflow) CHECK(r.grad_norm == 1);  // zeros stay zeros, the rest is unscaled exactly
    s.update();
  };
  for (int i = 0; i < 200; ++i) iterate(true);
  CHECK(s.get_scale() == 0x1p-149);
  iterate(false);
  CHECK(s.get_scale() == 0x1p-148);
  for (int i = 0; i < 400; ++i) iterate(false);
  CHECK(s.get_scale() == 0x1p127);
  iterate(false);
  CHECK(s.get_scale() == 0x1p127);
  CHECK(w.to_vector() == std::vector<float>{1, 1});
}

TEST_CASE("f16 parameters: the Error names the parameter and the cure, at once, not at the first step [\"Attempting to unscale FP16 gradients\"]") {
  const Tensor w = parameter({1, 2}, {2}, f16);
  CHECK_ERROR(optim::AdamW(optim::NamedParameters{{"block.0.weight", w}}), "block.0.weight", "f16", "Storage::master");
  CHECK(w.dtype() == f16);
  CHECK(w.version() == 0);
  optim::AdamW adamw(optim::NamedParameters{{"block.0.weight", w}}, {.lr = 0.5, .storage = optim::Storage::master, .low = f16});
  GradScaler scaler;
  scaler.scale(w);
  set_gradient(w, {8, 8});
  CHECK(scaler.step(adamw).applied);
}

TEST_CASE("bf16 gradients are scaled, checked and unscaled like any") {
  const Tensor w = parameter({1, 2}, {2}, bf16);
  optim::Sgd sgd({w}, {.lr = 1});
  GradScaler scaler({.init_scale = 4});
  scaler.scale(sum(w * 3.0)).backward();
  CHECK(w.grad().dtype() == bf16);
  scaler.unscale(sgd);
  CHECK(w.grad().to_vector() == std::vector<float>{3, 3});
  CHECK(scaler.step(sgd).applied);
  CHECK(w.to_vector() == std::vector<float>{-2, -1});
}

TEST_CASE("the recipes scale where f16 is, and nowhere else") {
  for (const auto& name : train::recipe_names()) {
    CAPTURE(name);
    const train::Recipe recipe = train::recipe(name);
    const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
    optim::AdamWOptions o{.storage = recipe.storage};
    if (is_16bit(recipe.low)) o.low = recipe.low;
    optim::AdamW adamw({w}, o);
    train::Step step(adamw, {.recipe = name});
    if (recipe.low != f16) {
      CHECK_FALSE(step.scaler().is_enabled());
      CHECK(step.scaler().get_scale() == 1);
    }
    CHECK(recipe.scaling == step.scaler().is_enabled());
  }
}

TEST_CASE("two scalers, one optimizer each, do not know of each other; one optimizer under two scalers is unscaled by both") {
  Training t(false), u(false);
  t.scaler.unscale(*t.optimizer);
  CHECK_NOTHROW(u.scaler.step(*u.optimizer));
  GradScaler other({.init_scale = 2});
  other.scale(t.b);
  other.unscale(*t.optimizer);
  CHECK(t.b.grad().item() == -1);  // -8 / 4 / 2
}
