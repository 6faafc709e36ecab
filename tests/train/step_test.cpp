// step_test.cpp - the training step: what it adds up, what it undoes, what it leaves alone.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

#include "train/support.h"

namespace mezzo::test {
namespace {

/// A parameter of given values, and the loss sum(w * c), whose gradient is c.
Tensor parameter(std::vector<float> values, Shape shape) { return tensor(std::move(values), std::move(shape), {.requires_grad = true}); }
Tensor dot(const Tensor& w, std::vector<float> c) { return sum(mul(w, tensor(std::move(c), w.shape()))); }

std::vector<std::vector<float>> values_of(const std::vector<Tensor>& tensors) {
  std::vector<std::vector<float>> out;
  for (const auto& t : tensors) out.push_back(t.to_vector());
  return out;
}

models::Gpt small_gpt(double dropout = 0) {
  return models::Gpt({.vocab = 32, .context = 8, .layers = 2, .heads = 2, .width = 16, .dropout = dropout});
}
Tensor ids(Generator& random, std::int64_t b, std::int64_t t) {
  std::vector<std::int32_t> v(static_cast<std::size_t>(b * t));
  for (auto& x : v) x = static_cast<std::int32_t>(random.below(32));
  return from_span(std::span<const std::int32_t>(v), {b, t});
}

}  // namespace

TEST_CASE("a step is the written-out loop: autocast, scale, backward, step, update") {
  for (const auto& name : train::recipe_names()) {
    CAPTURE(name);
    const auto recipe = train::recipe(name);
    const auto train = [&](bool by_hand) {
      manual_seed(11);
      auto model = small_gpt(0.1);
      optim::AdamW opt(model.named_parameters(), {.lr = 1e-2, .storage = recipe.storage, .low = is_16bit(recipe.low) ? recipe.low : bf16});
      train::Step step(opt, {.recipe = name, .clip_norm = 0.5, .accumulate = 1});
      amp::GradScaler scaler(step.plan().scaler.value_or(amp::GradScalerOptions{.enabled = false}));
      Generator random(5);
      std::vector<double> losses;
      for (int i = 0; i < 5; ++i) {
        const Tensor x = ids(random, 2, 8), y = ids(random, 2, 8);
        if (!by_hand) {
          losses.push_back(step([&](int) { return model.loss(x, y); }).loss);
          continue;
        }
        opt.zero_grad();
        Tensor loss;
        if (recipe.autocast) loss = amp::autocast(recipe.low, [&] { return model.loss(x, y); });
        else loss = model.loss(x, y);
        scaler.scale(loss).backward();
        scaler.step(opt, {.clip_norm = 0.5});
        scaler.update();
        losses.push_back(loss.item());
      }
      return std::pair(losses, values_of(model.parameters()));
    };
    CHECK(train(false) == train(true));
  }
}

TEST_CASE("auto without rows: they are counted in the first step, and few of them run in f32 from the second on") {
  if (train::resolve({.width = 256, .rows = 256}).recipe.name != "bf16") return;  // nothing to choose on this instruction set
  for (const std::int64_t rows : {1, 256}) {
    CAPTURE(rows);
    nn::Mlp model({.in = 256, .width = 256, .out = 256});
    optim::AdamW opt(model.parameters(), {});
    train::Step step(opt, {.recipe = "auto"});
    CHECK(step.plan().recipe.name == "bf16");
    std::vector<Dtype> dtypes;
    const Tensor x = ones({rows, 256});
    for (int i = 0; i < 2; ++i)
      step([&](int) {
        const Tensor y = model(x);
        dtypes.push_back(y.dtype());
        return mean(y);
      });
    CHECK(dtypes == std::vector<Dtype>{bf16, rows == 1 ? f32 : bf16});
    CHECK(step.plan().recipe.name == (rows == 1 ? "fp32" : "bf16"));
    CHECK(error_of([&] { step({}); }) ==
          "[train::Step] an empty loss function given. Hint: it takes the number of the micro-batch and returns its loss");
  }
}

TEST_CASE("micro-batches: the mean of their gradients, and of their losses") {
  const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
  optim::Sgd opt({w}, {.lr = 1});
  train::Step step(opt, {.recipe = "fp32", .accumulate = 2});
  const auto report = step([&](int micro) { return dot(w, micro == 0 ? std::vector<float>{1, 0, 2, 0} : std::vector<float>{3, 4, 0, 0}); });
  CHECK(report.applied());
  CHECK(report.loss == (1 + 6 + 3 + 8) / 2.0);
  CHECK(w.to_vector() == std::vector<float>{1 - 2, 2 - 2, 3 - 1, 4});
  CHECK(report.result.grad_norm == doctest::Approx(std::sqrt(4 + 4 + 1.0)).epsilon(1e-12));
  CHECK(report.result.zero_fraction == 0.25);
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("micro-batches of a 16-bit weight are summed in f32 and rounded once") {
  for (const char* name : {"bf16-master", "bf16-split", "bf16-kahan", "bf16-sr", "bf16-pure"}) {
    CAPTURE(name);
    const Tensor w = parameter({0, 0, 0, 0}, {2, 2});
    optim::Sgd opt({w}, {.lr = 1, .storage = train::recipe(name).storage, .low = bf16});
    train::Step step(opt, {.recipe = name, .accumulate = 8});
    // 256 + 1 is 256 in bf16, seven times; in f32 263, which rounds to 264.
    step([&](int micro) { return mul(sum(w), micro == 0 ? 256.0 : 1.0); });
    CHECK(w.dtype() == bf16);
    CHECK(w.to_vector() == std::vector<float>(4, -264.0f / 8));
  }
}

TEST_CASE("a loss divided by a power of two trains to the same bits; clipping, norm and eps see the whole gradient") {
  const auto train = [](double divisor, double clip) {
    manual_seed(2);
    auto model = small_gpt();
    optim::AdamW opt(model.named_parameters(), {.lr = 1e-2, .eps = 1e-3});  // an eps that would show
    train::Step step(opt, {.recipe = "fp32", .clip_norm = clip, .loss_divisor = divisor});
    Generator random(5);
    std::vector<double> seen;
    for (int i = 0; i < 10; ++i) {
      const Tensor x = ids(random, 2, 8), y = ids(random, 2, 8);
      const auto r = step([&](int) { return model.loss(x, y); });
      seen.push_back(r.loss);
      seen.push_back(r.result.grad_norm);
    }
    return seen;
  };
  for (const double clip : {0.0, 0.3}) {
    const auto plain = train(1, clip), divided = train(4096, clip), odd = train(1234.5, clip);
    CHECK(plain == divided);
    for (std::size_t i = 0; i < plain.size(); ++i) CHECK(odd[i] == doctest::Approx(plain[i]).epsilon(1e-4));
  }
}

TEST_CASE("a small share of a large batch is lost to fp16, and kept by loss scaling") {
  const Tensor w = parameter(std::vector<float>(16, 0.5f), {4, 4});
  const auto run = [&](amp::GradScalerOptions scaler) {
    const Tensor v = parameter(std::vector<float>(16, 0.5f), {4, 4});
    optim::Sgd opt({v}, {.lr = 1, .storage = optim::Storage::master, .low = f16});
    train::Step step(opt, {.recipe = "fp16-master", .scaler = scaler, .loss_divisor = 512});
    return step([&](int) { return mul(mean(v), 1e-4); }).result;  // gradient 1e-4 / 16, through fp16 divided by 512: 1.2e-8 < 2^-25
  };
  const auto lost = run({.enabled = false}), kept = run({});
  CHECK(lost.zero_fraction == 1);
  CHECK(lost.grad_norm == 0);
  CHECK(kept.zero_fraction == 0);
  CHECK(kept.grad_norm == doctest::Approx(1e-4 / 16 * 4).epsilon(1e-3));
}

TEST_CASE("a step that is not applied leaves parameters, moments, counts; the scale backs off; the generator goes on") {
  manual_seed(3);
  auto model = small_gpt(0.1);
  optim::AdamW opt(model.named_parameters(), {.lr = 1e-2, .storage = optim::Storage::master, .low = f16});
  train::Step step(opt, {.recipe = "fp16-master"});
  Generator random(5);
  const Tensor x = ids(random, 2, 8), y = ids(random, 2, 8);
  step([&](int) { return model.loss(x, y); });

  const auto weights = values_of(model.parameters());
  const auto before = opt.state();
  const auto counter = default_generator().counter();
  const double scale = step.scaler().get_scale();
  const auto report = step([&](int) { return mul(model.loss(x, y), 1e6); });
  CHECK_FALSE(report.applied());
  CHECK(report.result.found_inf);
  CHECK(report.result.culprit.find("weight") != std::string::npos);
  CHECK(report.result.scale == scale);
  CHECK(step.scaler().get_scale() == scale / 2);
  CHECK(default_generator().counter() > counter);
  CHECK(values_of(model.parameters()) == weights);
  const auto after = opt.state();
  CHECK(after.step == before.step);
  REQUIRE(after.tensors.size() == before.tensors.size());
  for (std::size_t i = 0; i < after.tensors.size(); ++i) CHECK(after.tensors[i].second.to_vector() == before.tensors[i].second.to_vector());
}

TEST_CASE("a loss function that throws changes nothing, and the next step is as if it had not run") {
  const Tensor w = parameter({1, 2}, {2});
  optim::Sgd opt({w}, {.lr = 1});
  train::Step step(opt, {.recipe = "fp32", .accumulate = 2});
  CHECK_THROWS_AS(step([&](int micro) {
                    if (micro == 1) throw std::runtime_error("out of data");
                    return dot(w, {5, 5});
                  }),
                  std::runtime_error);
  CHECK(w.to_vector() == std::vector<float>{1, 2});
  step([&](int) { return dot(w, {1, 1}); });
  CHECK(w.to_vector() == std::vector<float>{0, 1});
}

TEST_CASE("NaN and Inf without scaling: reported, not applied") {
  for (const char* name : {"fp32", "bf16", "fp16"}) {
    const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
    const auto recipe = train::recipe(name);
    optim::Sgd opt(optim::NamedParameters{{"the.weight", w}}, {.lr = 1, .storage = recipe.storage});
    train::Step step(opt, {.recipe = name, .scaler = amp::GradScalerOptions{.enabled = false}});
    const auto r = step([&](int) { return mul(sum(w), std::numeric_limits<double>::quiet_NaN()); });
    CHECK_FALSE(r.applied());
    CHECK(r.result.found_nan);
    CHECK(r.result.culprit == "the.weight");
    CHECK(std::isnan(r.loss));
    CHECK(w.to_vector() == std::vector<float>{1, 2, 3, 4});
  }
}

TEST_CASE("clipping: the norm that is reported is the one before, the update has the one after") {
  const Tensor w = parameter({0, 0}, {2});
  optim::Sgd opt({w}, {.lr = 1});
  train::Step step(opt, {.recipe = "fp32", .clip_norm = 0.5});
  const auto r = step([&](int) { return dot(w, {3, 4}); });
  CHECK(r.result.grad_norm == 5);
  CHECK(w.to_vector()[0] == doctest::Approx(-0.3).epsilon(1e-5));
  CHECK(w.to_vector()[1] == doctest::Approx(-0.4).epsilon(1e-5));
}

TEST_CASE("what a step refuses") {
  const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
  optim::Sgd opt({w}, {.lr = 1});
  using train::Step;
  CHECK(contains(error_of([&] { Step(opt, {.recipe = "bf16-master"}); }), "Storage::master wanted for recipe bf16-master"));
  CHECK(contains(error_of([&] { Step(opt, {.recipe = "bf16-sr"}); }), "build it with .storage = Storage::stochastic"));
  CHECK(contains(error_of([&] { Step(opt, {.recipe = "fp32", .accumulate = 0}); }), "accumulate = 0"));
  CHECK(contains(error_of([&] { Step(opt, {.recipe = "fp32", .clip_norm = -1}); }), "clip_norm = -1"));
  CHECK(contains(error_of([&] { Step(opt, {.recipe = "fp32", .loss_divisor = 0}); }), "loss_divisor = 0"));
  const Tensor v = parameter({1, 2, 3, 4}, {2, 2});
  optim::Sgd masters({v}, {.lr = 1, .storage = optim::Storage::master, .low = bf16});
  CHECK(contains(error_of([&] { Step(masters, {.recipe = "fp16-master"}); }), "f16 wanted for recipe fp16-master"));

  Step step(opt, {.recipe = "fp32"});
  CHECK(contains(error_of([&] { step([&](int) { return mul(w, 2.0); }); }), "one number wanted"));
  CHECK(contains(error_of([&] { step([&](int) { return Tensor(); }); }), "an undefined tensor"));
  CHECK(contains(error_of([&] { step([&](int) { return sum(w.detach()); }); }), "depends on no parameter"));
  CHECK(w.to_vector() == std::vector<float>{1, 2, 3, 4});
}

TEST_CASE("module buffers belong to the step: a step that is not applied leaves running statistics as they were") {
  nn::BatchNorm1d norm({.dim = 2});
  optim::Sgd opt(norm.named_parameters(), {.lr = 0.1});
  train::Step step(opt, {.recipe = "fp32", .accumulate = 2, .scaler = amp::GradScalerOptions{.init_scale = 4}});
  const Tensor x = tensor({1, 2, 3, 4, 5, 7}, {3, 2});
  const auto statistics = [&] { return values_of({norm.running_mean, norm.running_var}); };
  const auto loss = [&](double size) { return [&, size](int micro) { return mul(sum(norm(mul(x, micro + 1.0))), size); }; };
  const auto at_first = statistics();

  CHECK(step(loss(1)).applied());
  const auto after_one = statistics();
  CHECK(after_one != at_first);

  const auto version = norm.running_mean.version();
  CHECK_FALSE(step(loss(std::numeric_limits<double>::infinity())).applied());
  CHECK(statistics() == after_one);
  CHECK(norm.running_mean.version() > version);  // whoever saved it in between is told

  CHECK_THROWS_AS(step([&](int micro) {
                    if (micro == 1) throw std::runtime_error("no more data");
                    return loss(1)(micro);
                  }),
                  std::runtime_error);
  CHECK(statistics() == after_one);

  CHECK(step(loss(1)).applied());
  CHECK(statistics() != after_one);
}

TEST_CASE("a module's own buffer, written in any way, is restored too; other tensors are not") {
  struct Counting final : nn::Module {
    Counting() {
      w = register_parameter("w", ones({2}));
      seen = register_buffer("seen", zeros({3}));
    }
    Tensor w, seen;
  } m;
  const Tensor outside = zeros({1});
  optim::Sgd opt(m.named_parameters(), {.lr = 0.1});
  train::Step step(opt, {.recipe = "fp32", .scaler = amp::GradScalerOptions{}});
  const auto run = [&](double size) {
    return step([&](int) {
      fill_(m.seen.narrow(0, 0, 1), 5);
      copy_(m.seen.narrow(0, 1, 1), ones({1}));
      Tensor handle = m.seen;
      handle.mutable_data<float>()[2] += 1;
      fill_(outside, size);
      return mul(sum(m.w), size);
    });
  };
  CHECK_FALSE(run(std::numeric_limits<double>::infinity()).applied());
  CHECK(m.seen.to_vector() == std::vector<float>{0, 0, 0});
  CHECK(std::isinf(outside.item()));
  CHECK(run(1).applied());
  CHECK(m.seen.to_vector() == std::vector<float>{5, 1, 1});
}

}  // namespace mezzo::test
