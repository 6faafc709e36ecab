// engine_test.cpp - the graph: recording, the backward loop, hooks, versions, functions of one's own, checkpointing.
#include <doctest/doctest.h>

#include <cmath>

#include <mezzo/mezzo.h>

using namespace mezzo;

TEST_CASE("a chain of 100,000 nodes runs backward and is freed without a deep stack") {
  Tensor x = tensor({1}, {1}, {.requires_grad = true});
  {
    Tensor y = x;
    for (int i = 0; i < 100000; ++i) y = add(y, 1.0);
    sum(y).backward({.retain_graph = true});
  }
  CHECK(x.grad().item() == 1);
  Tensor y = x;
  for (int i = 0; i < 100000; ++i) y = neg(y);  // freed without backward
}

TEST_CASE("gradients accumulate in place into the handle that grad() gave") {
  Tensor w = tensor({2, 3}, {2}, {.requires_grad = true});
  sum(mul(w, w)).backward();
  const Tensor g = w.grad();
  sum(mul(w, w)).backward();
  CHECK(g.to_vector() == std::vector<float>{8, 12});
  w.set_grad({});
  CHECK(!w.grad().defined());
}

TEST_CASE("one gradient that reaches two leaves becomes two buffers") {
  Tensor a = ones({2}, {.requires_grad = true}), b = ones({2}, {.requires_grad = true});
  sum(add(a, b)).backward();
  sum(mul(a, 3.0)).backward();
  CHECK(a.grad().to_vector() == std::vector<float>{4, 4});
  CHECK(b.grad().to_vector() == std::vector<float>{1, 1});
}

TEST_CASE("a graph is used once unless retained") {
  Tensor x = ones({2}, {.requires_grad = true});
  const Tensor y = sum(mul(x, x));
  y.backward({.retain_graph = true});
  y.backward();
  CHECK_THROWS_WITH_AS(y.backward(), doctest::Contains("retain_graph"), Error);
  CHECK(x.grad().to_vector() == std::vector<float>{4, 4});
}

TEST_CASE("an in-place write to a saved tensor is caught, one to a tensor nobody saved is not") {
  Tensor x = ones({3}, {.requires_grad = true}), c = ones({3});
  const Tensor y = sum(mul(x, c));
  fill_(c, 2);
  CHECK_THROWS_WITH_AS(y.backward(), doctest::Contains("in place"), Error);
  Tensor b = ones({3});
  const Tensor z = sum(add(x, b));
  fill_(b, 5);
  z.backward();
  CHECK(x.grad().to_vector() == std::vector<float>{1, 1, 1});
}

TEST_CASE("in place on a tensor that requires grad: an Error with grad mode, allowed under NoGrad, seen through views") {
  Tensor w = ones({2, 2}, {.requires_grad = true});
  CHECK_THROWS_WITH_AS(fill_(w, 0), doctest::Contains("NoGrad"), Error);
  CHECK_THROWS_AS(fill_(w.narrow(0, 0, 1), 0), Error);
  CHECK_THROWS_AS(copy_(zeros({2, 2}), w), Error);
  CHECK_THROWS_WITH_AS(copy_(zeros({1}).expand({3}), tensor({1, 2, 3}, {3})), doctest::Contains("an expanded view"), Error);
  CHECK(copy_(zeros({1}).expand({1}), tensor({3}, {1})).item() == 3);
  const auto before = w.version();
  {
    const autograd::NoGrad off;
    copy_(w.select(0, 1), tensor({7, 8}, {2}));
  }
  CHECK(w.version() == before + 1);
  CHECK(w.to_vector() == std::vector<float>{1, 1, 7, 8});
}

TEST_CASE("hooks: replace a gradient, on leaves and between; removed by their handle") {
  Tensor x = ones({2}, {.requires_grad = true});
  Tensor h = mul(x, 2.0);
  int calls = 0;
  auto on_h = h.register_hook([&](const Tensor& g) {
    ++calls;
    return mul(g, 10.0);
  });
  auto on_x = x.register_hook([&](const Tensor& g) {
    ++calls;
    CHECK(g.to_vector() == std::vector<float>{43, 43});
    return Tensor();
  });
  sum(add(mul(h, 2.0), mul(x, 3.0))).backward();  // the leaf's hook sees the sum of both ways, once
  CHECK(calls == 2);
  CHECK(x.grad().to_vector() == std::vector<float>{43, 43});
  on_x.remove();
  on_h.remove();
  sum(mul(x, 1.0)).backward();
  CHECK(calls == 2);
}

TEST_CASE("hooks: what they return has the gradient's shape and takes its dtype; one may take itself away while it runs") {
  Tensor x = ones({3}, {.requires_grad = true});
  Tensor h = mul(x, 2.0);
  auto narrow = x.register_hook([](const Tensor& g) { return sum(g); });
  CHECK_THROWS_WITH_AS(sum(h).backward({.retain_graph = true}), doctest::Contains("a hook gave shape (), the gradient's (3,) wanted. Hint: "), Error);
  CHECK(!x.grad().defined());
  narrow.remove();
  auto on_h = h.register_hook([](const Tensor& g) { return sum(g); });
  CHECK_THROWS_WITH_AS(sum(h).backward({.retain_graph = true}), doctest::Contains("[register_hook]"), Error);
  on_h.remove();
  CHECK_THROWS_WITH_AS(x.register_hook({}), doctest::Contains("an empty function given"), Error);

  int calls = 0;
  HookHandle once = x.register_hook([&](const Tensor& g) {
    ++calls;
    once.remove();
    return g.to(f64);
  });
  sum(h).backward({.retain_graph = true});
  sum(h).backward();
  CHECK(calls == 1);
  CHECK(x.grad().dtype() == f32);
  CHECK(x.grad().to_vector() == std::vector<float>{4, 4, 4});
}

TEST_CASE("set_grad: the tensor's dtype, or f32 for 16 bits, as the sums of their gradients are") {
  const Tensor w = ones({2}, {.dtype = bf16, .requires_grad = true});
  for (int i = 0; i < 2; ++i) sum(w).backward();
  CHECK(w.grad().dtype() == f32);
  w.set_grad(mul(w.grad(), 0.5));
  CHECK(w.grad().to_vector() == std::vector<float>{1, 1});
  CHECK_THROWS_WITH_AS(w.set_grad(ones({2}, {.dtype = f64})), doctest::Contains("for a 16-bit tensor f32 is right too"), Error);
}

TEST_CASE("autograd::grad: touches no .grad, finds unused inputs, stops at what was asked for") {
  Tensor x = tensor({3}, {1}, {.requires_grad = true}), unused = ones({1}, {.requires_grad = true});
  const Tensor y = mul(x, x), z = mul(y, x);
  const auto g = autograd::grad({sum(z)}, {x, y}, {.retain_graph = true});
  CHECK(g[0].item() == 27);
  CHECK(g[1].item() == 3);
  CHECK(!x.grad().defined());
  CHECK_THROWS_WITH_AS(autograd::grad({sum(z)}, {unused}, {.retain_graph = true}), doctest::Contains("allow_unused"), Error);
  CHECK(!autograd::grad({sum(z)}, {unused}, {.allow_unused = true})[0].defined());
}

TEST_CASE("create_graph: third derivative of x^4, and a gradient penalty") {
  Tensor x = tensor({2}, {1}, {.dtype = f64, .requires_grad = true});
  Tensor y = sum(mul(mul(x, x), mul(x, x)));
  for (const double expected : {32.0, 48.0, 48.0}) {
    y = sum(autograd::grad({y}, {x}, {.create_graph = true})[0]);
    CHECK(std::fabs(y.item() - expected) < 1e-12);
  }
  Tensor w = tensor({1, 2}, {2}, {.dtype = f64, .requires_grad = true});
  const Tensor loss = sum(mul(mul(w, w), w));
  const Tensor g = autograd::grad({loss}, {w}, {.create_graph = true})[0];
  add(loss, sum(mul(g, g))).backward();  // 3 w^2 + 36 w^3
  CHECK(w.grad().to_vector() == std::vector<float>{39, 300});
}

TEST_CASE("NoGrad and detach record nothing; the function form restores") {
  Tensor x = ones({2}, {.requires_grad = true});
  CHECK(autograd::grad_enabled());
  CHECK(!autograd::no_grad([&] { return mul(x, 2.0); }).requires_grad());
  CHECK(autograd::grad_enabled());
  CHECK(!x.detach().requires_grad());
  CHECK(x.detach().version() == x.version());
  try {
    autograd::no_grad([]() -> int { throw Error("x"); });
  } catch (const Error&) {}
  CHECK(autograd::grad_enabled());
}

namespace {
struct Square : autograd::Function<Square> {
  static Tensor forward(autograd::Context& c, const Tensor& x) {
    c.save({x});
    return mul(x, x);
  }
  static Tensor backward(autograd::Context& c, const Tensor& dy) { return mul(mul(c.saved()[0], 2.0), dy); }
};
/// x times 1, 2, 3, 4, each a result of its own.
struct Multiples : autograd::Function<Multiples> {
  static std::vector<Tensor> forward(autograd::Context&, const Tensor& x) { return {mul(x, 1.0), mul(x, 2.0), mul(x, 3.0), mul(x, 4.0)}; }
  static Tensor backward(autograd::Context&, const Tensor& d1, const Tensor& d2, const Tensor& d3, const Tensor& d4) {
    return add(add(d1, mul(d2, 2.0)), add(mul(d3, 3.0), mul(d4, 4.0)));
  }
};
struct InF32 : autograd::Function<InF32> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};
  static Tensor forward(autograd::Context&, const Tensor& a, const Tensor& b) {
    CHECK(a.dtype() == f32);
    CHECK(b.dtype() == f32);
    CHECK(!amp::autocast_enabled());
    return mul(a, b);
  }
  static std::vector<Tensor> backward(autograd::Context&, const Tensor& dy) {
    CHECK(!amp::autocast_enabled());
    return {dy, {}};
  }
};
}  // namespace

TEST_CASE("a function of one's own: gradients, second order, casts under autocast") {
  Tensor x = tensor({3}, {1}, {.dtype = f64, .requires_grad = true});
  const Tensor y = Square::apply(x);
  const Tensor g = autograd::grad({y}, {x}, {.create_graph = true})[0];
  CHECK(g.item() == 6);
  CHECK(autograd::grad({g}, {x})[0].item() == 2);
  Tensor a = ones({2}, {.dtype = bf16, .requires_grad = true}), b = ones({2}, {.dtype = bf16});
  const Tensor z = amp::autocast(bf16, [&] { return InF32::apply(a, b); });
  CHECK(z.dtype() == f32);
  sum(z).backward();
  CHECK(a.grad().dtype() == bf16);
  Tensor many = ones({1}, {.requires_grad = true});
  const auto all = Multiples::apply(many);
  sum(add(add(all[0], all[1]), add(all[2], all[3]))).backward();
  CHECK(many.grad().item() == 10);
}

TEST_CASE("requires_grad_: on a result that requires grad anyway it changes nothing; off, and on other results, it is an Error") {
  const Tensor x = ones({2}, {.requires_grad = true});
  Tensor y = mul(x, 2.0);
  CHECK(y.requires_grad_().requires_grad());
  CHECK_FALSE(y.is_leaf());
  CHECK_THROWS_WITH_AS(y.requires_grad_(false), doctest::Contains("detach()"), Error);
}

TEST_CASE("checkpoint: same values, gradients and random numbers, under autocast too") {
  for (const bool cast : {false, true}) {
    Generator g(3);
    Tensor x = randn({4, 8}, g, {.requires_grad = true}), w = randn({8, 8}, g, {.requires_grad = true});
    const auto f = [&](const std::vector<Tensor>& in) { return gelu(dropout(linear(in[0], w), 0.5, true)); };
    const auto run = [&](bool checkpointed) {
      manual_seed(17);
      x.set_grad({});
      w.set_grad({});
      const auto body = [&] { return checkpointed ? autograd::checkpoint(f, {x}) : f({x}); };
      const Tensor y = cast ? amp::autocast(bf16, body) : body();
      const double after = rand({1}).item();
      sum(y.to(f32)).backward();
      return std::array<std::vector<float>, 4>{y.to_vector(), x.grad().to_vector(), w.grad().to_vector(), {static_cast<float>(after)}};
    };
    CHECK(run(false) == run(true));
  }
}

TEST_CASE("views: gradients through every one of them, and reshape without a copy where strides allow") {
  Tensor x = arange(24, {.dtype = f64}).reshape({2, 3, 4}).detach().requires_grad_();
  const Tensor t = x.transpose(0, 2);
  CHECK(!t.is_contiguous());
  CHECK(t.reshape({4, 6}).to_vector()[1] == 12);
  CHECK(x.narrow(1, 1, 2).select(0, 1).to_vector() == std::vector<float>{16, 17, 18, 19, 20, 21, 22, 23});
  CHECK(x.permute({2, 0, 1}).shape() == Shape{4, 2, 3});
  CHECK(x.unsqueeze(-1).squeeze(-1).shape() == x.shape());
  const Tensor e = x.select(2, 0).unsqueeze(0).expand({5, 2, 3});
  sum(mul(e, 2.0)).backward();
  const auto g = x.grad().to_vector();
  for (std::size_t i = 0; i < g.size(); ++i) CHECK(g[i] == (i % 4 == 0 ? 10.0f : 0.0f));
  Tensor v = zeros({4, 4});
  CHECK(v.narrow(1, 0, 2).reshape({4, 1, 2}).version() == v.version());
  fill_(v.narrow(1, 0, 2).reshape({4, 1, 2}), 1);
  CHECK(sum(v).item() == 8);
  CHECK_THROWS_AS(v.reshape({3, -1}), Error);
  CHECK_THROWS_AS(v.narrow(0, 3, 2), Error);
  CHECK_THROWS_AS(v.size(2), Error);
}

TEST_CASE("dtypes: promotion to the widest, numbers never promote, products do not mix") {
  const Tensor h = ones({2}, {.dtype = f16}), b = ones({2}, {.dtype = bf16}), f = ones({2});
  CHECK(add(h, b).dtype() == f32);
  CHECK(add(b, h).dtype() == f32);
  CHECK(mul(h, 3.7).dtype() == f16);
  CHECK(add(h, f).dtype() == f32);
  CHECK(add(arange(2), ones({2}, {.dtype = i32})).dtype() == f32);
  CHECK_THROWS_WITH_AS(mm(ones({2, 2}, {.dtype = bf16}), ones({2, 2})), doctest::Contains("autocast"), Error);
  CHECK(mul(ones({2}, {.dtype = i32}), 2.0).dtype() == i32);
  CHECK(gt(f, 0.5).dtype() == boolean);
}
