// module_test.cpp - names, state, conversion and precision choices of modules.
#include <doctest/doctest.h>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

struct Pair final : nn::Module {
  Pair() {
    first = register_module("first", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 4, .out = 8}));
    norm = register_module("norm", std::make_shared<nn::LayerNorm>(nn::LayerNormOptions{.dim = 8}));
    second = register_module("second", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 8, .out = 2}));
    steps = register_buffer("steps", zeros({1}));
  }
  Tensor forward(const Tensor& x) override { return second->forward(norm->forward(first->forward(x))); }
  std::shared_ptr<nn::Linear> first, second;
  std::shared_ptr<nn::LayerNorm> norm;
  Tensor steps;
};

struct Outer final : nn::Module {
  Outer() { inner = register_module("inner", std::make_shared<Pair>()); }
  std::shared_ptr<Pair> inner;
};

std::vector<std::string> names(const std::vector<std::pair<std::string, Tensor>>& list) {
  std::vector<std::string> out;
  for (const auto& [name, t] : list) out.push_back(name);
  return out;
}

}  // namespace

TEST_CASE("parameters have their path as name, in order of registration") {
  Outer m;
  CHECK(names(m.named_parameters()) == std::vector<std::string>{"inner.first.weight", "inner.first.bias", "inner.norm.weight", "inner.norm.bias",
                                                                "inner.second.weight", "inner.second.bias"});
  CHECK(m.inner->first->weight.name() == "inner.first.weight");
  CHECK(names(m.named_buffers()) == std::vector<std::string>{"inner.steps"});
  CHECK(m.named_modules().size() == 5);
  CHECK(m.parameters().size() == 6);
  for (const auto& p : m.parameters()) CHECK((p.requires_grad() && p.is_leaf()));
  CHECK_THROWS_AS(m.forward(ones({1})), Error);
}

TEST_CASE("state: loads into the same handles; every misfit is named, and nothing is written then") {
  manual_seed(1);
  Pair a;
  manual_seed(2);
  Pair b;
  const Tensor handle = b.first->weight;
  const auto version = handle.version();
  b.load_state_dict(a.state_dict());
  CHECK(handle.to_vector() == a.first->weight.to_vector());
  CHECK(handle.version() > version);
  StateDict wrong = a.state_dict();
  wrong.pop_back();
  wrong[0].second = ones({3, 3});
  wrong.emplace_back("stranger", ones({1}));
  const auto before = b.first->bias.to_vector();
  CHECK_THROWS_WITH_AS(b.load_state_dict(wrong), doctest::Contains("`stranger` is unexpected"), Error);
  CHECK_THROWS_WITH_AS(b.load_state_dict(wrong), doctest::Contains("`steps` is missing"), Error);
  CHECK_THROWS_WITH_AS(b.load_state_dict(wrong), doctest::Contains("`first.weight` has shape (3, 3)"), Error);
  CHECK(b.first->bias.to_vector() == before);
}

TEST_CASE("train and eval reach every part; zero_grad drops gradients") {
  nn::Sequential m({std::make_shared<nn::Dropout>(nn::DropoutOptions{.p = 0.5}), std::make_shared<nn::Linear>(nn::LinearOptions{.in = 4, .out = 1})});
  m.eval();
  const Tensor x = ones({2, 4});
  CHECK(m(x).to_vector() == m(x).to_vector());
  CHECK(!m.named_modules()[1].second->is_training());
  sum(m(x)).backward();
  CHECK(m.parameters()[0].grad().defined());
  m.zero_grad();
  CHECK(!m.parameters()[0].grad().defined());
}

TEST_CASE("to() converts in place, except what keep() chose") {
  Pair m;
  const Tensor handle = m.first->weight;
  m.keep("^norm\\.", f32).to(bf16);
  CHECK(handle.dtype() == bf16);
  CHECK(handle.is_leaf());
  CHECK(m.norm->weight.dtype() == f32);
  CHECK_THROWS_AS(m.to(i32), Error);
  CHECK_THROWS_WITH_AS(m.keep("nowhere", f32), doctest::Contains("no parameter's path matches"), Error);
  CHECK_THROWS_WITH_AS(m.keep("(", f32), doctest::Contains("not a regular expression"), Error);
}

TEST_CASE("keep() holds in a recipe with masters: the optimizer leaves the weight in f32") {
  Pair m;
  m.keep("second", f32);
  optim::AdamW opt(m.named_parameters(), {.storage = optim::Storage::master, .low = bf16});
  CHECK(m.first->weight.dtype() == bf16);
  CHECK(m.second->weight.dtype() == f32);
  CHECK(m.first->bias.dtype() == f32);   // exempt
  CHECK(m.norm->weight.dtype() == f32);  // exempt
}

TEST_CASE("registration refuses bad names and taken ones") {
  struct Bad final : nn::Module {
    void add(const std::string& name) { register_parameter(name, ones({1})); }
    void add_buffer(const std::string& name) { register_buffer(name, ones({1})); }
    void add_part(const std::string& name) { register_module(name, std::make_shared<Bad>()); }
  } m;
  m.add("w");
  CHECK_THROWS_AS(m.add("w"), Error);
  CHECK_THROWS_WITH_AS(m.add_buffer("w"), doctest::Contains("`w` is taken"), Error);  // one state_dict() holds them all
  CHECK_THROWS_AS(m.add_part("w"), Error);
  m.add_buffer("b");
  CHECK_THROWS_AS(m.add("b"), Error);
  m.add_part("p");
  CHECK_THROWS_AS(m.add("p"), Error);
  CHECK_THROWS_AS(m.add("a.b"), Error);
  CHECK_THROWS_AS(m.add(""), Error);
  CHECK_THROWS_WITH_AS(nn::Linear({.in = 0, .out = 2}), doctest::Contains(".in = 0"), Error);
}
