// waiting_test.cpp - input gradients of linear layers are added to what already waits for the tensor: the same sums, whoever else holds them.
#include <doctest/doctest.h>

#include <vector>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

using Values = std::vector<float>;

// h (1, 2) is used three times: as a residual, and as the input of two layers. The gradient of every output is 1, so that of h is
// 1 + w^T 1 + v^T 1, in whatever order it is added.
struct Shared {
  Tensor x = tensor({1, 2}, {1, 2}, {.requires_grad = true});
  Tensor w = tensor({1, 2, 3, 4}, {2, 2}, {.requires_grad = true}), v = tensor({10, 20, 30, 40}, {2, 2}, {.requires_grad = true});
  Tensor h = mul(x, 1.0);
  Tensor y = linear_add(h, h, w), z = linear(h, v);
  Tensor loss = add(sum(y), sum(z));
  static inline const Values kGradient{45, 67};
};

}  // namespace

TEST_CASE("what waits is added to: a tensor that is residual and input at once, and input of a second layer") {
  Shared s;
  s.loss.backward();
  CHECK(s.x.grad().to_vector() == Shared::kGradient);
  CHECK(s.w.grad().to_vector() == Values{1, 2, 1, 2});
  CHECK(s.v.grad().to_vector() == Values{1, 2, 1, 2});
}

TEST_CASE("what waits is added to: hooks see the whole sum once, and what they kept stays as it was") {
  Shared s;
  std::vector<Tensor> of_h, of_y;
  const auto on_h = s.h.register_hook([&](const Tensor& g) { return of_h.push_back(g), Tensor(); });
  // dy is handed on as the residual's gradient: the layer's own may not be added to the tensor that is held here.
  const auto on_y = s.y.register_hook([&](const Tensor& g) { return of_y.push_back(g), Tensor(); });
  s.loss.backward();
  REQUIRE(of_h.size() == 1);
  REQUIRE(of_y.size() == 1);
  CHECK(of_h[0].to_vector() == Shared::kGradient);
  CHECK(of_y[0].to_vector() == Values{1, 1});
  CHECK(s.x.grad().to_vector() == Shared::kGradient);
}

TEST_CASE("what waits is added to: a graph that is used twice gives the same twice") {
  Shared s;
  s.loss.backward({.retain_graph = true});
  s.loss.backward();
  CHECK(s.x.grad().to_vector() == Values{90, 134});
}

TEST_CASE("what waits is added to: autograd::grad, and with create_graph") {
  Shared s;
  const auto g = autograd::grad({s.loss}, {s.h, s.x, s.y}, {.retain_graph = true});
  CHECK(g[0].to_vector() == Shared::kGradient);
  CHECK(g[1].to_vector() == Shared::kGradient);
  CHECK(g[2].to_vector() == Values{1, 1});
  CHECK(!s.w.grad().defined());
  const auto again = autograd::grad({s.loss}, {s.h}, {.create_graph = true});
  CHECK(again[0].to_vector() == Shared::kGradient);
  sum(again[0]).backward();  // d/dw of 1^T w^T 1
  CHECK(s.w.grad().to_vector() == Values{1, 1, 1, 1});
}

TEST_CASE("what waits is added to: gradients of its own dtype only, rounded once more in 16 bits") {
  // 256 + 1 is not a bf16: rounded to 256 (even), to which 2 is added. Backward begins with what was computed last.
  const auto gradient = [](const amp::Policy& policy) {
    const amp::Autocast region(bf16, {.policy = policy});
    Tensor x = tensor({1}, {1, 1}, {.requires_grad = true});
    const Tensor h = mul(x.to(bf16), 1.0);
    const Tensor a = tensor({256}, {1, 1}), b = tensor({1}, {1, 1}), c = tensor({2}, {1, 1});
    const Tensor last = linear(h, c), second = linear(h, b), first = linear(h, a);
    add(sum(last), add(sum(second), sum(first))).backward();
    return x.grad().item();
  };
  CHECK(gradient(amp::Policy::mezzo()) == 258);
  CHECK(gradient(amp::Policy::torch()) == 258);
  // An f32 tensor takes what the layers give in f32, rounded nowhere.
  const amp::Autocast region(bf16);
  Tensor x = tensor({1}, {1, 1}, {.requires_grad = true});
  const Tensor h = mul(x, 1.0);
  add(sum(linear(h, tensor({256}, {1, 1}))), sum(linear(h, tensor({1}, {1, 1})))).backward();
  CHECK(x.grad().item() == 257);
  // One in f64 is given f64.
  Tensor d = ones({1, 2}, {.dtype = f64, .requires_grad = true});
  const Tensor k = mul(d, 1.0), w = tensor({1, 2, 3, 4}, {2, 2}, {.dtype = f64});
  sum(linear_add(k, linear(k, w), w)).backward();
  CHECK(d.grad().dtype() == f64);
  CHECK(d.grad().to_vector() == Values{23, 33});
}
