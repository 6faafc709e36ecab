// history_test.cpp - what a run's history makes of its options and its state, and which guards are refused.
#include <cmath>
#include <cstring>

#include <doctest/doctest.h>

#include <mezzo/autograd.h>

#include "nn/state.h"
#include "train/checkpoint.h"
#include "train/history.h"
#include "train/machinery.h"
#include "train/recipe_change.h"
#include "train/support.h"

namespace mezzo::test {

namespace fs = std::filesystem;
using train::OnDivergence;

TEST_CASE("a history: what of it a run has behind it, what it makes of the options, its JSON") {
  const train::History all{{.step = 12, .reason = "a", .from = 10, .position = 24, .counter = 7, .fallback = "lr", .lr_factor = 0.5},
                           {.step = 13, .reason = "b", .from = 5, .position = 40, .counter = 9, .fallback = "op", .op = "add"},
                           {.step = 31, .reason = "c", .from = 30, .position = 80, .counter = 11, .fallback = "bf16", .precision = "bf16"}};
  CHECK(train::up_to(all, 4).empty());
  CHECK(train::up_to(all, 5).size() == 2);
  CHECK(train::up_to(all, 29).size() == 2);
  CHECK(train::up_to(all, 30).size() == 3);
  train::TrainOptions o;
  o.lr = 0.25;
  o.precision = "fp16";
  o.loss_scale = "1024";
  const auto now = train::in_force(o, all);
  CHECK(now.lr == 0.125);
  CHECK(now.f32_ops == std::vector<std::string>{"add"});
  CHECK(now.precision == "bf16");
  CHECK(now.loss_scale.empty());
  const io::Json j{{"history", train::to_json(all)}};
  CHECK(train::to_json(train::history_of(j, "file")) == j["history"]);
  CHECK(train::history_of(io::Json::object(), "file").empty());
  CHECK(contains(error_of([] { train::history_of({{"history", {{{"step", "one"}}}}}, "config.json"); }), "config.json: in its history"));
}

TEST_CASE("a checkpoint of one recipe, read into another that may follow: no bit of weights, masters and moments is lost") {
  const TempDir dir;
  write_small_text(dir);
  const auto of = [](const auto& dict, const std::string& name) {
    for (const auto& [key, t] : dict)
      if (key == name) return t;
    return Tensor();
  };
  struct Case {
    const char *from, *to;
  };
  for (const auto& c : {Case{"fp16", "bf16"}, Case{"fp16", "fp32"}, Case{"fp16-master", "bf16-master"}, Case{"fp16-master", "fp32"},
                        Case{"bf16-master", "fp32"}, Case{"fp16-pure", "bf16"}, Case{"fp16-pure", "fp32"}, Case{"bf16-pure", "fp32"}}) {
    CAPTURE(c.from);
    CAPTURE(c.to);
    auto o = small_run(dir, std::string(c.from) + "-" + c.to, c.from);
    run(o);
    const fs::path checkpoint = train::checkpoint_path(o.out, o.steps);
    const auto weights = load(checkpoint / "weights.safetensors"), state = load(checkpoint / "optimizer.safetensors");
    o = train::run_options(o.out);
    const auto shape = train::shape_of(o);
    o.precision = c.to;
    const auto machine = train::build(shape, o, train::precision_of(o, shape));
    if (train::recipe(c.from).storage != optim::Storage::f32)
      CHECK(contains(error_of([&] { train::read_checkpoint(checkpoint, machine.weights, *machine.optimizer); }), "wanted"));
    train::read_checkpoint(checkpoint, machine.weights, *machine.optimizer, true);
    const auto now = machine.optimizer->state();
    CHECK(now.step == o.steps);
    const auto parameters = machine.optimizer->named_parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto key = [&](const char* what) { return fmt::format("{}.{}", what, i); };
      for (const char* what : {"exp_avg", "exp_avg_sq"}) CHECK(of(now.tensors, key(what)).to_vector() == of(state, key(what)).to_vector());
      const Tensor master = of(state, key("master"));
      const Tensor truth = master.defined() ? master : of(weights, parameters[i].first);
      const Tensor mine = of(now.tensors, key("master")).defined() ? of(now.tensors, key("master")) : parameters[i].second;
      CHECK(mine.dtype() == f32);
      CHECK(mine.to_vector() == truth.to(f32).to_vector());
    }
  }
  CHECK(train::recipe_after(train::recipe("fp32"), f32).to.empty());
  CHECK(train::recipe_after(train::recipe("bf16"), bf16).to.empty());
  for (const char* own : {"bf16-split", "bf16-kahan", "bf16-sr"}) {
    const auto change = train::recipe_after(train::recipe(own), f32);
    CHECK(change.to.empty());
    CHECK(contains(change.why_not, own));
  }
}

TEST_CASE("what is refused, by its name on the command line") {
  const TempDir dir;
  write_small_text(dir);
  const auto with = [&](auto&& change) {
    auto o = small_run(dir, "run");
    change(o);
    return error_of([&] { train::Trainer t(o); });
  };
  CHECK(contains(with([](auto& o) {
                   o.fallbacks = {"lr", "fp23"};
                 }),
                 "--fallbacks fp23 given, some of op, lr, bf16, fp32 or lr=X wanted. Hint: did you mean `fp32`?"));
  CHECK(contains(with([](auto& o) { o.fallbacks = {"lr=2"}; }), "--fallbacks lr=2 given, lr=X with X above 0 and below 1 wanted"));
  CHECK(contains(with([](auto& o) { o.fallbacks = {}; }), "no --fallbacks given"));
  CHECK(contains(with([](auto& o) { o.max_rollbacks = 0; }), "--max-rollbacks 0 given"));
  CHECK(contains(with([](auto& o) { o.f32_ops = {"gleu"}; }), "gelu"));
  CHECK(contains(error_of([] { train::on_divergence_from_name("rolback"); }), "did you mean `rollback`?"));
}

}  // namespace mezzo::test
