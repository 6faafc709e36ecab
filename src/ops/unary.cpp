// unary.cpp - element-wise functions of one tensor. Storage T, compute f32 (f64 for f64), one rounding on store.
#include <cmath>
#include <numbers>

#include "ops/common.h"

namespace mezzo {
namespace {

using kernels::Unary;

/// One row a function: its kernel and its derivative in plain ops (s is x or y, as kernels::derivative_from_output says), which is what
/// runs with create_graph.
struct UnaryOp {
  OpId id;
  Unary kernel;
  Tensor (*derivative)(const Tensor& s, const Tensor& dy);
};

Tensor apply(const UnaryOp& op, const Tensor& x) {
  require_floating(name(op.id), x);
  const Operand a = dense(operand(op.id, x));
  const Tensor y = make_tensor(a.value.shape(), a.value.dtype());
  const PartScope timed(Part::activation);
  kernels::unary(cpu_queue(), op.kernel, y.dtype(), data(a.value), mutable_data(y), y.numel());
  return record(op.id, y, {a}, {kernels::derivative_from_output(op.kernel) ? y : a.value}, [op](Backward& g) {
    const Tensor s = g.saved(0);
    if (g.create_graph()) return g.set(0, op.derivative(s, g.dy()));
    const PartScope timed(Part::activation);
    const Tensor dy = dense(g.dy()), dx = make_tensor(s.shape(), s.dtype());
    kernels::unary_backward(cpu_queue(), op.kernel, s.dtype(), data(s), data(dy), mutable_data(dx), dx.numel());
    g.set(0, dx);
  });
}

Tensor sign(const Tensor& x) { return sub(gt(x, 0).to(x.dtype()), lt(x, 0).to(x.dtype())); }

/// gelu'(x) = Phi(x) + x phi(x), with its own derivative phi(x) (2 - x^2): so that gelu has a second one.
Tensor gelu_slope(const Tensor& x) {
  const Tensor one = ones(x.shape(), {.dtype = x.dtype()}), y = make_tensor(x.shape(), x.dtype()), v = dense(x);
  kernels::unary_backward(cpu_queue(), Unary::gelu, x.dtype(), data(v), data(one), mutable_data(y), y.numel());
  return record(OpId::gradient_of, y, {x}, {x}, [](Backward& g) {
    const Tensor s = g.saved(0), s2 = mul(s, s);
    g.set(0, mul(g.dy(), mul(mul(exp(mul(s2, -0.5)), 1 / std::sqrt(2 * std::numbers::pi)), sub(2.0, s2))));
  });
}
Tensor gelu_tanh_slope(const Tensor& x) {
  const double c = std::sqrt(2 / std::numbers::pi), a = 0.044715;
  const Tensor x2 = mul(x, x), t = tanh(mul(add(x, mul(mul(x2, x), a)), c));
  return add(mul(add(t, 1.0), 0.5), mul(mul(mul(x, 0.5), sub(1.0, mul(t, t))), mul(add(mul(x2, 3 * a), 1.0), c)));
}

}  // namespace

// clang-format off
Tensor neg(const Tensor& x)      { return apply({OpId::neg, Unary::neg,           [](const Tensor&, const Tensor& dy) { return neg(dy); }}, x); }
Tensor exp(const Tensor& x)      { return apply({OpId::exp, Unary::exp,           [](const Tensor& y, const Tensor& dy) { return mul(dy, y); }}, x); }
Tensor log(const Tensor& x)      { return apply({OpId::log, Unary::log,           [](const Tensor& s, const Tensor& dy) { return div(dy, s); }}, x); }
Tensor sqrt(const Tensor& x)     { return apply({OpId::sqrt, Unary::sqrt,         [](const Tensor& y, const Tensor& dy) { return div(mul(dy, 0.5), y); }}, x); }
Tensor rsqrt(const Tensor& x)    { return apply({OpId::rsqrt, Unary::rsqrt,       [](const Tensor& y, const Tensor& dy) { return mul(mul(dy, -0.5), mul(mul(y, y), y)); }}, x); }
Tensor abs(const Tensor& x)      { return apply({OpId::abs, Unary::abs,           [](const Tensor& s, const Tensor& dy) { return mul(dy, sign(s)); }}, x); }
Tensor tanh(const Tensor& x)     { return apply({OpId::tanh, Unary::tanh,         [](const Tensor& y, const Tensor& dy) { return mul(dy, sub(1.0, mul(y, y))); }}, x); }
Tensor sigmoid(const Tensor& x)  { return apply({OpId::sigmoid, Unary::sigmoid,   [](const Tensor& y, const Tensor& dy) { return mul(dy, mul(y, sub(1.0, y))); }}, x); }
Tensor relu(const Tensor& x)     { return apply({OpId::relu, Unary::relu,         [](const Tensor& y, const Tensor& dy) { return mul(dy, gt(y, 0).to(dy.dtype())); }}, x); }
Tensor softplus(const Tensor& x) { return apply({OpId::softplus, Unary::softplus, [](const Tensor& s, const Tensor& dy) { return mul(dy, sigmoid(s)); }}, x); }
Tensor sin(const Tensor& x)      { return apply({OpId::sin, Unary::sin,           [](const Tensor& s, const Tensor& dy) { return mul(dy, cos(s)); }}, x); }
Tensor cos(const Tensor& x)      { return apply({OpId::cos, Unary::cos,           [](const Tensor& s, const Tensor& dy) { return neg(mul(dy, sin(s))); }}, x); }
// clang-format on
Tensor silu(const Tensor& x) {
  return apply({OpId::silu, Unary::silu,
                [](const Tensor& s, const Tensor& dy) {
                  const Tensor p = sigmoid(s);
                  return mul(dy, mul(p, add(mul(s, sub(1.0, p)), 1.0)));
                }},
               x);
}
Tensor gelu(const Tensor& x, GeluOptions o) {
  if (o.tanh) return apply({OpId::gelu, Unary::gelu_tanh, [](const Tensor& s, const Tensor& dy) { return mul(dy, gelu_tanh_slope(s)); }}, x);
  return apply({OpId::gelu, Unary::gelu, [](const Tensor& s, const Tensor& dy) { return mul(dy, gelu_slope(s)); }}, x);
}

// clamp: storage T, exact. The gradient passes where min < x < max (torch 2.15's choice on the edges).
Tensor clamp(const Tensor& x, ClampOptions o) {
  require_floating("clamp", x);
  if (!(o.min <= o.max)) fail("clamp", fmt::format("min {} and max {} given, min <= max wanted", o.min, o.max));
  const Operand a = dense(operand(OpId::clamp, x));
  const Tensor y = make_tensor(a.value.shape(), a.value.dtype());
  kernels::binary_scalar(cpu_queue(), kernels::Binary::maximum, y.dtype(), data(a.value), o.min, false, mutable_data(y), y.numel());
  kernels::binary_scalar(cpu_queue(), kernels::Binary::minimum, y.dtype(), data(y), o.max, false, mutable_data(y), y.numel());
  return record(OpId::clamp, y, {a}, {a.value}, [o](Backward& g) {
    const Tensor s = g.saved(0).detach();
    g.set(0, masked_fill(masked_fill(g.dy(), le(s, o.min), 0), ge(s, o.max), 0));
  });
}

// dropout: storage T, compute f32. Keeps (seed, offset) instead of a mask: backward draws the same numbers again.
Tensor dropout(const Tensor& x, double p, bool training) {
  require_floating("dropout", x);
  if (!(p >= 0 && p < 1)) fail("dropout", fmt::format("p = {} given, 0 <= p < 1 wanted", p));
  if (!training || p == 0) return x;
  const Operand a = dense(operand(OpId::dropout, x));
  Generator& random = default_generator();
  const auto seed = random.seed(), offset = random.reserve(static_cast<std::uint64_t>((x.numel() + 3) / 4));
  struct Draw {
    double p;
    std::uint64_t seed, offset;
    Tensor operator()(const Tensor& t) const {
      const Tensor v = dense(t), y = make_tensor(v.shape(), v.dtype());
      kernels::dropout(cpu_queue(), v.dtype(), data(v), mutable_data(y), v.numel(), p, seed, offset);
      const Draw again = *this;
      return record(OpId::dropout, y, {t}, {}, [again](Backward& g) { g.set(0, again(g.dy())); });
    }
  };
  const Draw draw{p, seed, offset};
  if (a.original.impl() == a.value.impl() || !should_record({a})) return draw(a.value);
  const Tensor y = make_tensor(a.value.shape(), a.value.dtype());
  kernels::dropout(cpu_queue(), y.dtype(), data(a.value), mutable_data(y), y.numel(), p, seed, offset);
  return record(OpId::dropout, y, {a}, {}, [draw](Backward& g) { g.set(0, draw(g.dy())); });
}

}  // namespace mezzo
