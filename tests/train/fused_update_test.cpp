// fused_update_test.cpp - the optimizer inside backward: the bits of a step apart from it, in less memory.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

#include "core/allocator.h"
#include "train/support.h"

namespace mezzo::test {
namespace {

Tensor ids(Generator& random, std::int64_t b, std::int64_t t) {
  std::vector<std::int32_t> v(static_cast<std::size_t>(b * t));
  for (auto& x : v) x = static_cast<std::int32_t>(random.below(32));
  return from_span(std::span<const std::int32_t>(v), {b, t});
}

struct Trained {
  std::vector<double> losses, norms, zeros;
  StateDict weights;
  optim::OptimizerState state;
};

/// Five steps of a model with a tied head.
Trained train(const std::string& name, bool fused, int checkpoint_every) {
  const auto recipe = train::recipe(name);
  manual_seed(11);
  models::Gpt model({.vocab = 32, .context = 8, .layers = 3, .heads = 2, .width = 16, .dropout = 0.1});
  model.checkpoint_every(checkpoint_every);
  optim::AdamW opt(model.named_parameters(), {.lr = 1e-2, .storage = recipe.storage, .low = is_16bit(recipe.low) ? recipe.low : bf16});
  train::Step step(opt, {.recipe = name, .loss_divisor = 3, .fuse_optimizer = fused});
  Generator random(5);
  Trained out;
  for (int i = 0; i < 5; ++i) {
    const Tensor x = ids(random, 2, 8), y = ids(random, 2, 8);
    const auto report = step([&](int) { return model.loss(x, y); });
    REQUIRE(report.applied());
    out.losses.push_back(report.loss);
    out.norms.push_back(report.result.grad_norm);
    out.zeros.push_back(report.result.zero_fraction);
    for (const auto& [path, w] : model.named_parameters()) CHECK(!w.grad().defined());
  }
  out.weights = model.state_dict();
  out.state = opt.state();
  return out;
}

void check_same(const StateDict& a, const StateDict& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].first);
    CHECK(a[i].second.dtype() == b[i].second.dtype());
    CHECK(a[i].second.to_vector() == b[i].second.to_vector());
  }
}

}  // namespace

TEST_CASE("a fused step has the bits of the other, tied head and blocks computed again included") {
  for (const auto& name : train::recipe_names()) {
    if (train::recipe(name).scaling) continue;
    for (const int every : {0, 1, 2}) {
      CAPTURE(name);
      CAPTURE(every);
      const Trained apart = train(name, false, every), fused = train(name, true, every);
      CHECK(apart.losses == fused.losses);
      CHECK(apart.norms == fused.norms);
      CHECK(apart.zeros == fused.zeros);
      CHECK(apart.state.step == fused.state.step);
      check_same(apart.weights, fused.weights);
      check_same(apart.state.tensors, fused.state.tensors);
    }
  }
}

TEST_CASE("a weight is updated after its last use, an early one while backward still runs") {
  Tensor first = tensor({2, 3}, {2}, {.requires_grad = true}), shared = tensor({5, 7}, {2}, {.requires_grad = true});
  optim::Sgd opt(std::vector<Tensor>{first, shared}, {.lr = 1});
  train::Step step(opt, {.recipe = "fp32", .fuse_optimizer = true});
  std::vector<std::vector<float>> seen;
  step([&](int) {
    Tensor h = mul(shared, first);
    h.register_hook([&](const Tensor&) {
      seen = {shared.to_vector(), first.to_vector()};
      return Tensor();
    });
    return sum(mul(h, shared));
  });
  // loss = first shared^2: the hook runs after the outer product, before the inner one
  CHECK(seen == std::vector<std::vector<float>>{{5, 7}, {2, 3}});
  CHECK(shared.to_vector() == std::vector<float>{5 - 2 * 2 * 5, 7 - 2 * 3 * 7});
  CHECK(first.to_vector() == std::vector<float>{2 - 25, 3 - 49});

  Tensor late = tensor({1}, {1}, {.requires_grad = true}), early = tensor({1}, {1}, {.requires_grad = true});
  optim::Sgd two(std::vector<Tensor>{late, early}, {.lr = 1});
  train::Step other(two, {.recipe = "fp32", .fuse_optimizer = true});
  float then = 0;
  other([&](int) {
    Tensor h = mul(late, 2.0);
    h.register_hook([&](const Tensor&) {
      then = static_cast<float>(early.item());
      return Tensor();
    });
    return sum(mul(h, early));
  });
  CHECK(then == 1 - 2);  // updated, and its gradient gone, before the rest of backward
  CHECK(late.item() == 1 - 2);
}

TEST_CASE("weights with a hook, and weights that no gradient reaches") {
  Tensor hooked = tensor({1}, {1}, {.requires_grad = true}), idle = tensor({1}, {1}, {.requires_grad = true});
  optim::Sgd opt(std::vector<Tensor>{hooked, idle}, {.lr = 1});
  hooked.register_hook([](const Tensor& g) { return mul(g, 10.0); });
  train::Step step(opt, {.recipe = "fp32", .fuse_optimizer = true});
  step([&](int) { return sum(mul(hooked, 3.0)); });
  CHECK(hooked.item() == 1 - 30);
  CHECK(idle.item() == 1);
}

TEST_CASE("what needs all gradients at once is refused, with the reason") {
  Tensor w = tensor({1}, {1}, {.requires_grad = true});
  optim::Sgd opt(std::vector<Tensor>{w}, {.lr = 1});
  const auto error = [&](train::StepOptions o) {
    o.fuse_optimizer = true;
    return error_of([&] { train::Step s(opt, o); });
  };
  CHECK(contains(error({.recipe = "fp32", .clip_norm = 1}), ".clip_norm = 1: the norm is known when backward has ended"));
  CHECK(contains(error({.recipe = "fp32", .accumulate = 2}), ".accumulate = 2: a gradient is complete after the last micro-batch"));
  CHECK(contains(error({.recipe = "fp16"}), "loss scaling: one overflow"));
  train::Step step(opt, {.recipe = "fp32", .fuse_optimizer = true});
  CHECK(contains(error_of([&] { step([&](int) { return sum(mul(w, 2.0)); }, [] {}); }), "before_update given"));
  CHECK(contains(error_of([&] { step([&](int) { return sum(mul(w, std::numeric_limits<double>::infinity())); }); }),
                 "the gradient of `param[0]` holds Inf, when 0 of 1 parameters had been updated"));
  CHECK(w.item() == 1);

  const TempDir dir;
  write_small_text(dir);
  auto o = small_run(dir, "run");
  o.fuse_optimizer = true;
  CHECK(contains(error_of([&] { train::plan_bytes(o); }), "--fuse-optimizer with --clip-norm 1 given"));
  o.clip_norm = 0;
  o.accumulate = 2;
  CHECK(contains(error_of([&] { train::plan_bytes(o); }), "--fuse-optimizer with --accumulate 2 given"));
  o.accumulate = 1;
  o.inspect = 5;
  CHECK(contains(error_of([&] { train::plan_bytes(o); }), "--fuse-optimizer with --inspect given"));
  o.inspect = 0;
  for (const auto guard : {train::OnDivergence::rollback, train::OnDivergence::fallback}) {
    o.on_divergence = guard;
    CHECK(contains(error_of([&] { train::plan_bytes(o); }), fmt::format("--fuse-optimizer with --on-divergence {} given", train::name(guard))));
  }
  o.on_divergence = train::OnDivergence::warn;
  o.precision = "fp16";
  CHECK(contains(error_of([&] { train::plan_bytes(o); }), "--fuse-optimizer with --precision fp16, which scales the loss, given"));
}

TEST_CASE("gradients that are never all there: the plan knows, and the run takes that much less") {
  const TempDir dir;
  write_small_text(dir, 40000);
  for (const char* recipe : {"fp32", "bf16", "bf16-sr"}) {
    CAPTURE(recipe);
    auto o = small_run(dir, std::string("run-") + recipe, recipe);
    o.model = "gpt:layers=6,heads=4,width=128";
    o.clip_norm = 0;
    o.batch = 1;
    const auto apart = train::plan_bytes(o);
    o.fuse_optimizer = true;
    const auto plan = train::plan_bytes(o);
    const auto s = run(o);
    const auto gradients = apart.bytes[static_cast<std::size_t>(Memory::gradients)];
    MESSAGE(fmt::format("{}: {} apart, of which {} gradients; {} fused", recipe, apart.peak, gradients, plan.peak));
    CHECK(plan.peak == s.peak_bytes);
    CHECK(plan.bytes == s.bytes);
    CHECK(plan.peak < apart.peak - gradients / 2);
  }
}

}  // namespace mezzo::test
