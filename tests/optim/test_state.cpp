// Optimizer state: out, in, and on with the same bits.
#include <functional>
#include <memory>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using optim::Storage;

namespace {

using Make = std::function<std::unique_ptr<optim::Optimizer>(std::vector<Tensor>)>;
struct Maker {
  const char* name;
  Make make;
};
const std::vector<Maker> kMakers = {
    {"sgd", [](auto p) { return std::make_unique<optim::Sgd>(p, optim::SgdOptions{.lr = 0.1}); }},
    {"sgd momentum", [](auto p) { return std::make_unique<optim::Sgd>(p, optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true}); }},
    {"adamw", [](auto p) { return std::make_unique<optim::AdamW>(p, optim::AdamWOptions{.lr = 0.1}); }},
    {"adamw bf16 master", [](auto p) { return std::make_unique<optim::AdamW>(p, optim::AdamWOptions{.lr = 0.1, .storage = Storage::master}); }},
    {"adamw bf16 master half away",
     [](auto p) {
       return std::make_unique<optim::AdamW>(
           p, optim::AdamWOptions{.lr = 0.1, .storage = Storage::master, .copy_rounding = optim::CopyRounding::half_away});
     }},
    {"adam f16 master",
     [](auto p) { return std::make_unique<optim::Adam>(p, optim::AdamOptions{.lr = 0.1, .storage = Storage::master, .low = f16}); }},
};

struct Run {
  Tensor matrix = parameter({1, -0.3f, 0.7f, 2, 0.01f, -5}, {2, 3}), bias = parameter({0.5f, -0.5f}, {2});
  std::unique_ptr<optim::Optimizer> optimizer;

  explicit Run(const Make& make) : optimizer(make({matrix, bias})) {}
  void steps(int from, int to) {
    for (int i = from; i < to; ++i) {
      const auto s = static_cast<float>(i + 1);
      set_gradient(matrix, {0.1f * s, -0.2f, 0.3f / s, 1e-3f, -7, s});
      if (i > 1) set_gradient(bias, {0.01f, -s});  // the bias starts late
      optimizer->groups()[0].lr = 0.1 / (1 + i);
      optimizer->step();
    }
  }
  bool same_as(const Run& o) const {
    const auto a = optimizer->state(), b = o.optimizer->state();
    if (bits(matrix) != bits(o.matrix) || bits(bias) != bits(o.bias) || a.kind != b.kind || a.step != b.step || a.groups != b.groups ||
        a.tensors.size() != b.tensors.size())
      return false;
    for (std::size_t i = 0; i < a.tensors.size(); ++i)
      if (a.tensors[i].first != b.tensors[i].first || bits(a.tensors[i].second) != bits(b.tensors[i].second)) return false;
    return true;
  }
};

}  // namespace

TEST_CASE("state and load_state continue with the same bits") {
  for (const Maker& maker : kMakers) {
    const Make& make = maker.make;
    CAPTURE(maker.name);
    Run straight(make), before(make), after(make);
    straight.steps(0, 6);
    before.steps(0, 3);
    {
      const autograd::NoGrad guard;  // the weights travel apart, as in a checkpoint
      copy_(after.matrix, before.matrix);
      copy_(after.bias, before.bias);
    }
    after.optimizer->load_state(before.optimizer->state());
    CHECK(after.same_as(before));
    after.steps(3, 6);
    CHECK(after.same_as(straight));
  }
}

TEST_CASE("weights may be loaded after the state, too") {
  for (const Maker& maker : kMakers) {
    const Make& make = maker.make;
    CAPTURE(maker.name);
    Run straight(make), before(make), after(make);
    straight.steps(0, 6);
    before.steps(0, 3);
    after.optimizer->load_state(before.optimizer->state());
    const autograd::NoGrad guard;
    copy_(after.matrix, before.matrix);
    copy_(after.bias, before.bias);
    after.steps(3, 6);
    CHECK(after.same_as(straight));
  }
}

TEST_CASE("a state is a copy: stepping on does not change it, loading it steps back") {
  for (const Maker& maker : kMakers) {
    const Make& make = maker.make;
    CAPTURE(maker.name);
    Run run(make), straight(make);
    run.steps(0, 3);
    straight.steps(0, 3);
    const auto state = run.optimizer->state();
    const Tensor matrix = run.matrix.detach().clone(), bias = run.bias.detach().clone();
    run.steps(3, 5);
    run.optimizer->load_state(state);
    const autograd::NoGrad guard;
    copy_(run.matrix, matrix);
    copy_(run.bias, bias);
    run.optimizer->groups()[0].lr = straight.optimizer->groups()[0].lr;
    CHECK(run.same_as(straight));
  }
}

TEST_CASE("state_view shows the live tensors") {
  Run run(kMakers[2].make);
  run.steps(0, 1);
  const auto view = run.optimizer->state_view();
  run.steps(1, 2);
  CHECK(bits(named(view.tensors, "exp_avg.0")) == bits(named(run.optimizer->state().tensors, "exp_avg.0")));
}

TEST_CASE("a state from before a parameter's first step takes its moments away again") {
  Run run(kMakers[2].make);
  run.steps(0, 1);
  const auto state = run.optimizer->state();
  run.steps(1, 4);
  CHECK(run.optimizer->state().tensors.size() == 5);
  run.optimizer->load_state(state);
  CHECK(run.optimizer->state().tensors.size() == 3);
}

TEST_CASE("load_state: what does not fit is an Error and changes nothing") {
  const auto& make = kMakers[2].make;
  Run run(make), same(make);
  run.steps(0, 3);
  same.steps(0, 3);
  const auto good = run.optimizer->state();
  const auto refuse = [&](auto change, std::initializer_list<const char*> parts) {
    auto bad = good;
    change(bad);
    const auto message = error_of([&] { run.optimizer->load_state(bad); });
    CHECK_MESSAGE(contains(message, "[AdamW]"), message);
    for (const char* p : parts) CHECK_MESSAGE(contains(message, p), message);
    CHECK(run.same_as(same));
  };
  refuse([](auto& s) { s.kind = "adamw master bf16 nearest_even"; }, {"`adamw master bf16 nearest_even`", "`adamw f32`"});
  refuse([](auto& s) { s.groups.emplace_back(1, 1); }, {"2 parameter groups", "1 wanted"});
  refuse([](auto& s) { s.names.pop_back(); }, {"1 parameters", "2 wanted"});
  refuse([](auto& s) { s.names[1] = "wte.weight"; }, {"parameter 1 is `wte.weight`", "`param[1]` wanted"});
  refuse([](auto& s) { s.tensors.pop_back(); }, {"lacks tensor `exp_avg_sq.1`"});
  refuse([](auto& s) { s.tensors.erase(s.tensors.begin()); }, {"lacks tensor `steps`"});
  refuse([](auto& s) { s.tensors[1].second = zeros({3, 2}); }, {"`exp_avg.0` is (3, 2) f32, (2, 3) f32 wanted"});
  refuse([](auto& s) { s.tensors[1].second = zeros({2, 3}, {.dtype = bf16}); }, {"`exp_avg.0` is (2, 3) bf16"});
  refuse([](auto& s) { s.tensors.emplace_back("master.0", zeros({2, 3})); }, {"`master.0`", "does not keep"});
  refuse([](auto& s) { s.step = 1; }, {"3 updates of parameter 0 in 1 steps"});
}
