// composite_test.cpp - ops without a PyTorch twin: gradients of first and second order against central differences in f64; values at the edges.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <mezzo/mezzo.h>

#include "grad/differences.h"
#include "ops/product.h"

using namespace mezzo;
using mezzo::test::check_differences;

namespace {

Tensor random64(Shape s, std::uint64_t seed) {
  Generator g(seed);
  return randn(s, g, {.dtype = f64});
}

}  // namespace

TEST_CASE("swiglu") {
  check_differences([](const auto& v) { return swiglu(v[0], v[1]); }, {random64({2, 3}, 1), random64({2, 3}, 2)});
}
TEST_CASE("packed_attention, causal") {
  check_differences([](const auto& v) { return packed_attention(v[0], 2, {.is_causal = true}); }, {random64({2, 3, 12}, 3)});
}
TEST_CASE("linear_add") {
  check_differences([](const auto& v) { return linear_add(v[0], v[1], v[2], v[3]); },
                    {random64({2, 4}, 4), random64({2, 3}, 5), random64({4, 3}, 6), random64({4}, 7)});
}
TEST_CASE("linear with a second product in its sum") {
  check_differences(
      [](const auto& v) {
        return detail::linear(v[0], v[1], v[2], v[3], {v[4], v[5]});
      },
      {random64({2, 3}, 8), random64({4, 3}, 9), random64({4}, 10), random64({2, 4}, 11), random64({2, 2}, 12), random64({4, 2}, 13)});
  // Few and many rows go different ways; torch's policy rounds each product by itself.
  for (const std::int64_t rows : {5, 300}) {
    for (const Dtype dtype : {f32, f16, bf16}) {
      for (const bool like_torch : {false, true}) {
        CAPTURE(rows);
        CAPTURE(name(dtype));
        const amp::Autocast region(is_16bit(dtype) ? dtype : bf16,
                                   {.enabled = is_16bit(dtype), .policy = like_torch ? amp::Policy::torch() : amp::Policy::mezzo()});
        std::vector<Tensor> v{random64({rows, 96}, 14),  random64({130, 96}, 15),  random64({130}, 16),
                              random64({rows, 130}, 17), random64({rows, 16}, 18), random64({130, 16}, 19)};
        std::vector<Tensor> low;
        for (auto& t : v) {
          low.push_back(t.to(f32).requires_grad_());
          t = low.back().detach().to(f64).requires_grad_();
        }
        const Tensor y = detail::linear(low[0], low[1], low[2], low[3], {low[4], low[5]});
        Tensor wanted;
        {
          const amp::Autocast off(bf16, {.enabled = false});
          wanted = add(add(add(matmul(v[0], v[1].transpose(0, 1)), v[2]), v[3]), matmul(v[4], v[5].transpose(0, 1)));
        }
        sum(mul(y.to(f32), y.to(f32).detach())).backward();
        sum(mul(wanted, y.to(f64).detach())).backward();
        // In 16 bits operands, gradient and result are rounded once or twice each; in f32 each of up to 300 sums is.
        const double eps = dtype == f32 ? 300 * 0x1p-24 : format_info(dtype).epsilon;
        const auto near = [&](const Tensor& a, const Tensor& b) {
          return amax(abs(sub(a.detach().to(f64), b.detach()))).item() <= 4 * eps * amax(abs(b.detach())).item();
        };
        CHECK(y.dtype() == dtype);
        CHECK(near(y, wanted));
        for (std::size_t i = 0; i < v.size(); ++i) CHECK_MESSAGE(near(low[i].grad(), v[i].grad()), "input ", i);
      }
    }
  }
}
TEST_CASE("linear with a second product in its sum: operands as they lie in memory, and sizes of one and none") {
  const auto integers = [](Shape s, std::uint64_t seed, Dtype dtype, bool turned) {
    Generator g(seed);
    std::vector<float> values;
    for (std::int64_t i = 0; i < s.numel(); ++i) values.push_back(static_cast<float>(g.below(5)) - 2);  // sums of them are exact in bf16 too
    const Tensor t = tensor(values, s, {.dtype = dtype});
    return turned ? t.transpose(0, 1).contiguous().transpose(0, 1) : t;
  };
  for (const Dtype dtype : {f32, bf16}) {
    for (const std::int64_t rows : {0, 1, 3, 40, 300}) {  // few go one way, many another
      for (const auto& [in, out, r] : {std::array<std::int64_t, 3>{5, 7, 3}, {1, 7, 3}, {5, 1, 3}, {5, 7, 1}, {1, 1, 1}}) {
        for (int turned = 0; turned < 16; ++turned) {
          const std::string label = fmt::format("{} {}x{}x{} + {}, turned {}", name(dtype), rows, in, out, r, turned);
          CAPTURE(label);
          const Tensor x = integers({rows, in}, 20, dtype, turned & 1), w = integers({out, in}, 21, dtype, turned & 2);
          const Tensor jx = integers({rows, r}, 22, dtype, turned & 4), jw = integers({out, r}, 23, dtype, turned & 8);
          const Tensor wanted = add(matmul(x.contiguous(), w.contiguous().transpose(0, 1)), matmul(jx.contiguous(), jw.contiguous().transpose(0, 1)));
          CHECK(detail::linear(x, w, {}, {}, {jx, jw}).to_vector() == wanted.to_vector());
        }
      }
    }
  }
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

TEST_CASE("sum and mean in f64 of an f32 tensor add in f64") {
  const Tensor x = full({1 << 16}, 0.1, {.requires_grad = true});
  const double tenth = 0.1f;
  const Tensor s = sum(x, {.dtype = f64});
  CHECK(s.dtype() == f64);
  CHECK(s.item() == doctest::Approx(tenth * (1 << 16)).epsilon(1e-14));
  CHECK(mean(x, {.dtype = f64}).item() == doctest::Approx(tenth).epsilon(1e-14));
  s.backward();
  CHECK(x.grad().dtype() == f32);
  CHECK(x.grad().to_vector() == std::vector<float>(1 << 16, 1.0f));
}

TEST_CASE("binary_cross_entropy_with_logits: a logit that overflowed against its target is an infinite loss, not NaN") {
  const double inf = std::numeric_limits<double>::infinity();
  for (const Dtype t : {f32, f16, bf16}) {
    const auto loss = [&](double x, double y) {
      return binary_cross_entropy_with_logits(full({1}, x, {.dtype = t}), full({1}, y, {.dtype = t})).item();
    };
    CHECK(loss(inf, 0) == inf);
    CHECK(loss(inf, 0.5) == inf);
    CHECK(loss(-inf, 1) == inf);
    CHECK(loss(-inf, 0.5) == inf);
    CHECK(loss(20, 1) == doctest::Approx(std::log1p(std::exp(-20.0))).epsilon(0.01));  // nothing cancels
  }
}
