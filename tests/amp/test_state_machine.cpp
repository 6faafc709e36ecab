// The order of calls: what each state allows, what an Error says, and that it changes nothing.
#include <cmath>
#include <limits>

#include <mezzo/amp.h>
#include <mezzo/autograd.h>
#include <mezzo/ops.h>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using amp::GradScaler;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

/// A scaler after scale(), an optimizer over one named parameter with a gradient of 8 (unscaled: 2).
struct Bench {
  Tensor w = parameter({10}, {1});
  optim::Sgd sgd{optim::NamedParameters{{"w", w}}, {.lr = 1}};
  GradScaler scaler{amp::GradScalerOptions{.init_scale = 4}};
  Bench() {
    set_gradient(w, {8});
    scaler.scale(w);
  }
};

}  // namespace

TEST_CASE("ready: step unscales, applies and says so") {
  Bench b;
  const auto r = b.scaler.step(b.sgd);
  CHECK(r.applied);
  CHECK_FALSE(r.found_inf);
  CHECK_FALSE(r.found_nan);
  CHECK(r.scale == 4);
  CHECK(r.grad_norm == 2);
  CHECK(r.culprit.empty());
  CHECK(r.zero_fraction == 0);
  CHECK(b.w.item() == 8);
}

TEST_CASE("unscaled: step does not unscale again") {
  Bench b;
  b.scaler.unscale(b.sgd);
  CHECK(b.w.grad().item() == 2);
  CHECK(b.scaler.step(b.sgd).grad_norm == 2);
  CHECK(b.w.item() == 8);
}

TEST_CASE("before the first scale() unscale, step and update are Errors") {
  Bench b;
  GradScaler fresh;
  CHECK_ERROR(fresh.unscale(b.sgd), "[GradScaler]", "unscale() given before any scale()");
  CHECK_ERROR(fresh.step(b.sgd), "step() given before any scale()", "Hint: an iteration is");
  CHECK_ERROR(fresh.update(), "update() given before any scale()");
  CHECK_ERROR(fresh.update(2), "update() given before any scale()");
  CHECK(b.w.item() == 10);
  CHECK(b.w.grad().item() == 8);
}

TEST_CASE("once between updates: unscale, step") {
  Bench b;
  b.scaler.unscale(b.sgd);
  CHECK_ERROR(b.scaler.unscale(b.sgd), "unscale() given a second time", "since the last update()");
  CHECK(b.w.grad().item() == 2);
  b.scaler.step(b.sgd);
  CHECK_ERROR(b.scaler.unscale(b.sgd), "unscale() given after step()");
  CHECK_ERROR(b.scaler.step(b.sgd), "step() given a second time", "call update() once");
  CHECK(b.w.item() == 8);
  b.scaler.update();
  CHECK_NOTHROW(b.scaler.unscale(b.sgd));
}

TEST_CASE("update needs a check before it; unscale() is one") {
  Bench b;
  CHECK_ERROR(b.scaler.update(), "no gradient was checked");
  b.scaler.unscale(b.sgd);
  CHECK_NOTHROW(b.scaler.update());
  CHECK_ERROR(b.scaler.update(), "no gradient was checked");
}

TEST_CASE("an overflow that only unscale() saw backs off") {
  Bench b;
  set_gradient(b.w, {kInf});
  b.scaler.unscale(b.sgd);
  b.scaler.update();
  CHECK(b.scaler.get_scale() == 2);
}

TEST_CASE("state() and load_state() wait for update()") {
  Bench b;
  const auto state = b.scaler.state();
  b.scaler.unscale(b.sgd);
  CHECK_ERROR(b.scaler.state(), "state() given between step() and update()");
  b.scaler.step(b.sgd);
  CHECK_ERROR(b.scaler.state(), "state() given between");
  CHECK_ERROR(b.scaler.load_state(state), "load_state() given between");
  b.scaler.update();
  CHECK_NOTHROW(b.scaler.load_state(b.scaler.state()));
}

TEST_CASE("a closure is an Error, enabled or not [extra: positional closure]") {
  Bench b;
  GradScaler off({.enabled = false});
  const auto closure = [&] { return b.w; };
  CHECK_ERROR(b.scaler.step(b.sgd, closure), "[GradScaler]", "closure");
  CHECK_ERROR(off.step(b.sgd, closure), "closure");
  CHECK(b.w.item() == 10);
}

TEST_CASE("an optimizer is known by itself, not by its address") {
  const Tensor w = parameter({10}, {1});
  GradScaler scaler({.init_scale = 4});
  scaler.scale(w);
  for (int i = 0; i < 3; ++i) {  // three at one address
    optim::Sgd sgd({w});
    set_gradient(w, {8});
    CHECK_NOTHROW(scaler.step(sgd));
  }
}

TEST_CASE("Inf and NaN are told apart, the first culprit is named, nothing moves") {
  struct Case {
    float g;
    bool inf, nan;
  };
  for (const auto& c : {Case{kInf, true, false}, Case{-kInf, true, false}, Case{kNaN, false, true}}) {
    Bench b;
    const Tensor clean = parameter({1, 1}, {2}), bad = parameter({1, 1}, {2}), worse = parameter({1}, {1});
    optim::AdamW adamw({b.w, clean, bad, worse});
    set_gradient(clean, {1, 1});
    set_gradient(bad, {1, c.g});
    set_gradient(worse, {c.g});
    const auto r = b.scaler.step(adamw);
    CHECK_FALSE(r.applied);
    CHECK(r.found_inf == c.inf);
    CHECK(r.found_nan == c.nan);
    CHECK(r.culprit == "param[2]");
    CHECK_FALSE(std::isfinite(r.grad_norm));
    CHECK(adamw.steps() == 0);
    CHECK(adamw.state().tensors.size() == 1);
    CHECK(clean.version() == 0);
    b.scaler.update();
    CHECK(b.scaler.get_scale() == 2);
  }
  Bench b;
  set_gradient(b.w, {kInf});
  CHECK(b.scaler.step(b.sgd).culprit == "w");
}

// PyTorch applies such a step (test_params_invalidated_with_grads_invalidated_between_unscale_and_step): the parameters become garbage.
TEST_CASE(
    "gradients that go bad between unscale() and step() are seen "
    "[test_params_invalidated_with_grads_invalidated_between_unscale_and_step]") {
  Bench b;
  b.scaler.unscale(b.sgd);
  set_gradient(b.w, {kNaN});
  const auto r = b.scaler.step(b.sgd);
  CHECK_FALSE(r.applied);
  CHECK(r.found_nan);
  CHECK(r.culprit == "w");
  CHECK(b.w.item() == 10);
}

TEST_CASE("an Inf that was cleared after unscale() still skips, and its parameter stays the culprit") {
  Bench b;
  const Tensor other = parameter({1}, {1});
  optim::Sgd sgd({other, b.w}, {.lr = 1});
  set_gradient(b.w, {kInf});
  b.scaler.unscale(sgd);
  set_gradient(b.w, {0});
  set_gradient(other, {kNaN});
  const auto r = b.scaler.step(sgd);
  CHECK_FALSE(r.applied);
  CHECK(r.found_inf);
  CHECK(r.found_nan);
  CHECK(r.culprit == "w");
}

TEST_CASE("an optimizer without gradients: applied, a clean check, nothing changed") {
  const Tensor w = parameter({10}, {1});
  optim::AdamW adamw({w});
  GradScaler scaler({.init_scale = 4, .growth_interval = 1});
  scaler.scale(w);
  const auto r = scaler.step(adamw, {.clip_norm = 1});
  CHECK(r.applied);
  CHECK(r.grad_norm == 0);
  CHECK(r.zero_fraction == 0);
  CHECK(adamw.steps() == 0);
  CHECK(w.version() == 0);
  scaler.update();
  CHECK(scaler.get_scale() == 8);
}

TEST_CASE("max_consecutive_skips: the step that would be the N-th in a row throws, after marking it skipped") {
  Bench b;
  GradScaler scaler({.init_scale = 16, .max_consecutive_skips = 3});
  const auto skip = [&] {
    scaler.scale(b.w);
    set_gradient(b.w, {kInf});
    return scaler.step(b.sgd);
  };
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 2; ++i) {
      CHECK_FALSE(skip().applied);
      scaler.update();
    }
    CHECK(scaler.state().consecutive_skips == 2);
    if (round == 0) {  // a clean iteration begins the count anew
      set_gradient(b.w, {0});
      scaler.step(b.sgd);
      scaler.update();
      CHECK(scaler.state().consecutive_skips == 0);
    }
  }
  CHECK_ERROR(skip(), "iteration 3 in a row", "`w` holds Inf at loss scale 1;");
  CHECK_ERROR(scaler.step(b.sgd), "step() given a second time");
  CHECK(b.w.item() == 10);
  scaler.update();
  CHECK(scaler.get_scale() == 0.5);
  CHECK(scaler.state().consecutive_skips == 3);
}

TEST_CASE("step: bad options, and an optimizer that refuses, leave the iteration open") {
  Bench b;
  CHECK_ERROR(b.scaler.step(b.sgd, {.clip_norm = -1}), "clip_norm = -1");
  b.sgd.groups()[0].lr = -1;
  CHECK_ERROR(b.scaler.step(b.sgd), "[Sgd]", "lr = -1");
  CHECK_NOTHROW(b.scaler.state());
  b.sgd.groups()[0].lr = 1;
  CHECK(b.scaler.step(b.sgd).applied);
  CHECK(b.w.item() == 8);
}

TEST_CASE("scale(): misuse") {
  GradScaler scaler;
  CHECK_ERROR(scaler.scale(Tensor()), "[GradScaler]", "undefined");
  CHECK_ERROR(scaler.scale(arange(3, {.dtype = i64})), "i64");
}
