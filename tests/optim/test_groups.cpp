// Parameters, names, groups, options, and every way to get them wrong.
#include <cmath>

#include <mezzo/ops.h>

#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;
using optim::ParamGroup;
using optim::Storage;

TEST_CASE("a group's numbers: left out they are the options', 0 is 0, and they may change between steps") {
  const Tensor a = parameter({1}, {1}), b = parameter({1}, {1}), c = parameter({1}, {1});
  optim::Sgd sgd({ParamGroup{.params = {a}}, ParamGroup{.params = {b}, .lr = 0}, ParamGroup{.params = {c}, .lr = 0.25, .weight_decay = 0}},
                 {.lr = 0.5, .weight_decay = 1});
  CHECK(sgd.groups()[0].lr == 0.5);
  CHECK(sgd.groups()[0].weight_decay == 1);
  CHECK(sgd.groups()[1].lr == 0);
  CHECK(sgd.groups()[1].weight_decay == 1);
  CHECK(sgd.groups()[2].weight_decay == 0);
  for (const auto& w : {a, b, c}) set_gradient(w, {1});
  sgd.step();
  CHECK(a.item() == 0);  // 1 - 0.5 (1 + 1)
  CHECK(b.item() == 1);
  CHECK(c.item() == 0.75);
  sgd.groups()[1].lr = 0.125;
  sgd.step();
  CHECK(b.item() == 0.75);  // 1 - 0.125 (1 + 1)
}

TEST_CASE("named parameters give their names where a tensor has none") {
  Tensor a = parameter({1}, {1}), b = parameter({1}, {1});
  b.set_name("mine");
  const optim::AdamW named_ones(optim::NamedParameters{{"a", a}, {"b", b}});
  CHECK(a.name() == "a");
  CHECK(b.name() == "mine");
  CHECK(named_ones.named_parameters()[1].first == "mine");
  const optim::AdamW unnamed({parameter({1}, {1}), a});
  CHECK(unnamed.named_parameters()[0].first == "param[0]");
  CHECK(unnamed.named_parameters()[1].first == "a");
}

TEST_CASE("every optimizer has an id of its own") {
  const Tensor a = parameter({1}, {1});
  std::uint64_t before = 0;
  {
    const optim::Sgd sgd({a});
    before = sgd.id();
  }
  CHECK(optim::Sgd({a}).id() != before);
}

TEST_CASE("optimizer: misuse of parameters") {
  Tensor w = parameter({1, 2}, {2});
  w.set_name("layer.weight");
  CHECK_ERROR(optim::AdamW(std::vector<Tensor>{}), "[AdamW]", "no parameters");
  CHECK_ERROR(optim::AdamW(std::vector<ParamGroup>{{.params = {}}}), "no parameters");
  CHECK_ERROR(optim::Adam({w, Tensor()}), "[Adam]", "param[1]", "undefined");
  CHECK_ERROR(optim::Sgd({w, w}), "[Sgd]", "`layer.weight` is given twice, at 0 and 1");
  CHECK_ERROR(optim::Sgd({ParamGroup{.params = {w}}, ParamGroup{.params = {w}}}), "given twice");
  CHECK_ERROR(optim::Sgd({w * 2}), "param[0]", "result of an op");
  CHECK_ERROR(optim::Sgd({zeros({2}, {.dtype = i64})}), "i64");
  CHECK_ERROR(optim::Sgd({zeros({1}).expand({3}).requires_grad_()}), "expanded view");
}

TEST_CASE("f16 leaves need masters: the error names the parameter and the cure") {
  Tensor w = parameter({1, 2}, {1, 2}, f16);
  w.set_name("h.0.attn.weight");
  CHECK_ERROR(optim::AdamW({w}), "[AdamW]", "`h.0.attn.weight` is f16", "Storage::master", "Autocast");
  CHECK(w.dtype() == f16);
  CHECK_NOTHROW(optim::AdamW({w}, {.storage = Storage::master, .low = f16}));
}

TEST_CASE("optimizer: misuse of options leaves parameters as they were") {
  const Tensor w = parameter({1, 2, 3, 4}, {2, 2});
  const double nan = std::nan("");
  CHECK_ERROR(optim::Sgd({w}, {.lr = -1}), "lr = -1");
  CHECK_ERROR(optim::Sgd({w}, {.lr = nan}), "lr = nan");
  CHECK_ERROR(optim::Sgd({w}, {.momentum = -0.1}), "momentum = -0.1");
  CHECK_ERROR(optim::Sgd({w}, {.nesterov = true}), "nesterov");
  CHECK_ERROR(optim::Sgd({w}, {.weight_decay = -1}), "weight_decay = -1");
  CHECK_ERROR(optim::Sgd({ParamGroup{.params = {w}, .lr = nan}}), "lr = nan given for group 0");
  CHECK_ERROR(optim::Adam({w}, {.betas = {1.0, 0.9}}), "a beta = 1");
  CHECK_ERROR(optim::Adam({w}, {.betas = {0.9, -0.1}}), "a beta = -0.1");
  CHECK_ERROR(optim::AdamW({w}, {.eps = -1e-8}), "[AdamW]", "eps = -1e-08");
  CHECK_ERROR(optim::AdamW({w}, {.state_dtype = f16}), "state_dtype = f16");
  CHECK_ERROR(optim::AdamW({w}, {.storage = Storage::master, .low = f32}), "low = f32");
  CHECK_ERROR(optim::AdamW({w}, {.copy_rounding = optim::CopyRounding::half_away}), "half_away");
  CHECK(w.dtype() == f32);
  CHECK(w.version() == 0);
}

TEST_CASE("step: misuse is found before anything changes") {
  const Tensor a = parameter({1}, {1}), b = parameter({1}, {1});
  optim::Sgd sgd({ParamGroup{.params = {a}}, ParamGroup{.params = {b}}}, {.lr = 0.5});
  for (const auto& w : {a, b}) set_gradient(w, {1});
  sgd.groups()[1].lr = -0.5;
  CHECK_ERROR(sgd.step(), "lr = -0.5 given for group 1");
  sgd.groups()[1].lr = 0.5;
  sgd.groups()[0].params.push_back(parameter({1}, {1}));
  CHECK_ERROR(sgd.step(), "not those the optimizer was built with");
  sgd.groups()[0].params.pop_back();
  sgd.groups()[1].params.clear();
  CHECK_ERROR(sgd.step(), "1 parameters left");
  sgd.groups()[1].params = {b};
  CHECK_ERROR(sgd.step({.g_scale = INFINITY}), "g_scale = inf");
  CHECK(a.item() == 1);
  CHECK(sgd.steps() == 0);
  sgd.step();
  CHECK(b.item() == 0.5);
  CHECK(sgd.steps() == 1);
}
