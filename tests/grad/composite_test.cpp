// composite_test.cpp - ops without a PyTorch twin: gradients of first and second order against central differences in f64.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

using Fn = std::function<Tensor(const std::vector<Tensor>&)>;

/// Checks d(sum f . dy) and, with `second`, the derivative of that.
void check(const Fn& f, std::vector<Tensor> in, bool second = true) {
  Generator random(11);
  for (auto& t : in) t.requires_grad_();
  const Tensor probe = f(in);
  const Tensor dy = randn(probe.shape(), random, {.dtype = f64});
  std::vector<Tensor> r;
  for (const auto& t : in) r.push_back(randn(t.shape(), random, {.dtype = f64}));
  const auto value = [&] { return sum(mul(f(in), dy)); };
  const auto slope = [&](bool graph) {
    const auto g = autograd::grad({value()}, in, {.create_graph = graph});
    Tensor s;
    for (std::size_t i = 0; i < g.size(); ++i) s = s.defined() ? add(s, sum(mul(g[i], r[i]))) : sum(mul(g[i], r[i]));
    return s;
  };
  const auto compare = [&](const std::vector<Tensor>& got, const std::function<double()>& at) {
    for (std::size_t k = 0; k < in.size(); ++k) {
      Tensor x = in[k];
      for (std::size_t e = 0; e < static_cast<std::size_t>(x.numel()); ++e) {
        const double v = x.data<double>()[e], h = 1e-5;
        x.mutable_data<double>()[e] = v + h;
        const double up = at();
        x.mutable_data<double>()[e] = v - h;
        const double down = at();
        x.mutable_data<double>()[e] = v;
        const double d = (up - down) / (2 * h), g = got[k].defined() ? got[k].reshape({-1}).select(0, static_cast<std::int64_t>(e)).item() : 0;
        CAPTURE(k);
        CAPTURE(e);
        CHECK(std::fabs(g - d) <= 1e-7 * std::max(1.0, std::fabs(d)));
      }
    }
  };
  compare(autograd::grad({value()}, in), [&] { return value().item(); });
  if (second) compare(autograd::grad({slope(true)}, in, {.allow_unused = true}), [&] { return slope(false).item(); });
}

Tensor random64(Shape s, std::uint64_t seed) {
  Generator g(seed);
  return randn(s, g, {.dtype = f64});
}

}  // namespace

TEST_CASE("swiglu") {
  check([](const auto& v) { return swiglu(v[0], v[1]); }, {random64({2, 3}, 1), random64({2, 3}, 2)});
}
TEST_CASE("packed_attention, causal") {
  check([](const auto& v) { return packed_attention(v[0], 2, {.is_causal = true}); }, {random64({2, 3, 12}, 3)});
}
TEST_CASE("linear_add") {
  check([](const auto& v) { return linear_add(v[0], v[1], v[2], v[3]); },
        {random64({2, 4}, 4), random64({2, 3}, 5), random64({4, 3}, 6), random64({4}, 7)});
}
TEST_CASE("dropout: backward drops what forward dropped, and keeps the expectation") {
  manual_seed(5);
  Tensor x = ones({64, 64}, {.requires_grad = true});
  const Tensor y = dropout(x, 0.25, true);
  sum(y).backward();
  const auto a = y.to_vector(), g = x.grad().to_vector();
  CHECK(a == g);  // d(x k)/dx = k, and x is 1
  double mean_value = 0;
  for (const float v : a) {
    CHECK((v == 0.0f || std::fabs(v - 4.0f / 3) < 1e-6f));
    mean_value += static_cast<double>(v) / 4096;
  }
  CHECK(std::fabs(mean_value - 1) < 4 * std::sqrt(0.25 / 0.75 / 4096));
  CHECK(dropout(x, 0.25, false).impl() == x.impl());
  CHECK_THROWS_AS(dropout(x, 1.0, true), Error);
}
TEST_CASE("rope: turning keeps lengths, is linear, and its gradient turns back") {
  Generator g(9);
  Tensor x = randn({1, 2, 5, 8}, g, {.requires_grad = true});
  for (const bool interleaved : {false, true}) {
    const Tensor y = rope(x, {.interleaved = interleaved});
    CHECK(std::fabs(norm(y).item() - norm(x).item()) < 1e-5);
    const auto back = autograd::grad({y}, {x}, {.grad_outputs = {y.detach()}});
    const auto a = back[0].to_vector(), b = x.to_vector();
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::fabs(a[i] - b[i]) < 1e-5f);
  }
  // Position 1, pair 0 turns by one radian.
  const Tensor unit = tensor({0, 0, 1, 0}, {1, 1, 2, 2});
  const auto turned = rope(unit).to_vector();
  CHECK(std::fabs(turned[2] - std::cos(1.0f)) < 1e-6f);
  CHECK(std::fabs(turned[3] - std::sin(1.0f)) < 1e-6f);
}
