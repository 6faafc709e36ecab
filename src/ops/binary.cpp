// binary.cpp - element-wise functions of two tensors or a tensor and a number. Operands promote to the widest; compute f32, one rounding on store.
#include <cmath>

#include "core/log.h"
#include "ops/common.h"

namespace mezzo {
namespace {

using kernels::Binary;
using kernels::Compare;

struct Pair {
  Operand a, b;
  Tensor y;
};

Pair compute(OpId op, Binary kernel, const Tensor& a, const Tensor& b) {
  require_defined(name(op), a, "the first input");
  require_defined(name(op), b, "the second input");
  Dtype dtype = compute_dtype(op, {&a, &b});
  if (dtype == Dtype::boolean || (!is_floating(dtype) && (kernel == Binary::div || kernel == Binary::pow))) dtype = Dtype::f32;
  Pair p{operand(a, dtype), operand(b, dtype),
         make_tensor(a.shape() == b.shape() ? a.shape() : broadcast_shapes(name(op), a.shape(), b.shape()), dtype)};
  kernels::binary(cpu_queue(), kernel, dtype, data(p.a.value), data(p.b.value), mutable_data(p.y), strided({&p.y, &p.a.value, &p.b.value}));
  return p;
}

Operand compute(OpId op, Binary kernel, const Tensor& x, double s, bool scalar_first, Tensor& y) {
  require_defined(name(op), x, "the input");
  Dtype dtype = compute_dtype(op, x.dtype());
  if (dtype == Dtype::boolean ||
      (!is_floating(dtype) && (kernel == Binary::div || kernel == Binary::pow || s != static_cast<double>(static_cast<std::int64_t>(s)))))
    dtype = Dtype::f32;  // an integer tensor with a fraction
  Operand a = dense(operand(x, dtype));
  y = make_tensor(x.shape(), dtype);
  kernels::binary_scalar(cpu_queue(), kernel, dtype, data(a.value), s, scalar_first, mutable_data(y), y.numel());
  return a;
}

Tensor compare(Compare kernel, const Tensor& a, const Tensor& b) {
  require_defined("compare", a, "the first input");
  require_defined("compare", b, "the second input");
  const Dtype dtype = promote(a.dtype(), b.dtype());
  const Operand x = operand(a, dtype), z = operand(b, dtype);
  Tensor y = make_tensor(broadcast_shapes("compare", a.shape(), b.shape()), Dtype::boolean);
  kernels::compare(cpu_queue(), kernel, dtype, data(x.value), data(z.value), static_cast<std::uint8_t*>(mutable_data(y)),
                   strided({&y, &x.value, &z.value}));
  return y;
}
Tensor compare(Compare kernel, const Tensor& a, double b) {
  require_defined("compare", a, "the input");
  const bool fraction = !is_floating(a.dtype()) && b != static_cast<double>(static_cast<std::int64_t>(b));
  return compare(kernel, a, full({}, b, {.dtype = fraction ? Dtype::f32 : a.dtype()}));
}

/// The eps of a division that f16 cannot hold: x + eps is then x, and 0 stays 0.
void warn_of_lost_eps(Dtype dtype, double s) {
  constexpr double kRoundsToZero = 0x1p-25;  // half of f16's least subnormal number, a tie that goes to the even zero
  if (dtype != Dtype::f16 || s == 0 || std::abs(s) > kRoundsToZero) return;
  log_once(LogLevel::warning, "eps that is zero in f16",
           fmt::format("add: {} is zero in f16, so x + {} is x; where it guards a division, compute that in f32", s, s));
}

bool needs(const Tensor& t) { return context().grad && t.requires_grad(); }

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  Pair p = compute(OpId::add, Binary::add, a, b);
  return record(OpId::add, p.y, {p.a, p.b}, {}, [](Backward& g) {
    for (const int i : {0, 1})
      if (g.wants(i)) g.set(i, sum_to(g.dy(), g.input(i)));
  });
}

Tensor sub(const Tensor& a, const Tensor& b) {
  Pair p = compute(OpId::sub, Binary::sub, a, b);
  return record(OpId::sub, p.y, {p.a, p.b}, {}, [](Backward& g) {
    if (g.wants(0)) g.set(0, sum_to(g.dy(), g.input(0)));
    if (g.wants(1)) g.set(1, neg(sum_to(g.dy(), g.input(1))));
  });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  Pair p = compute(OpId::mul, Binary::mul, a, b);
  return record(OpId::mul, p.y, {p.a, p.b}, {needs(b) ? p.a.value : Tensor(), needs(a) ? p.b.value : Tensor()}, [](Backward& g) {
    if (g.wants(0)) g.set(0, sum_to(mul(g.dy(), g.saved(1)), g.input(0)));
    if (g.wants(1)) g.set(1, sum_to(mul(g.dy(), g.saved(0)), g.input(1)));
  });
}

Tensor div(const Tensor& a, const Tensor& b) {
  Pair p = compute(OpId::div, Binary::div, a, b);
  return record(OpId::div, p.y, {p.a, p.b}, {needs(b) ? p.a.value : Tensor(), p.b.value}, [](Backward& g) {
    const Tensor b = g.saved(1);
    if (g.wants(0)) g.set(0, sum_to(div(g.dy(), b), g.input(0)));
    if (g.wants(1)) g.set(1, sum_to(neg(mul(g.dy(), div(div(g.saved(0), b), b))), g.input(1)));
  });
}

// pow: f32 under autocast. d/dy is 0 where x and y are 0, as in torch.
Tensor pow(const Tensor& x, const Tensor& y) {
  Pair p = compute(OpId::pow, Binary::pow, x, y);
  return record(OpId::pow, p.y, {p.a, p.b}, {p.a.value, p.b.value, needs(y) ? p.y : Tensor()}, [](Backward& g) {
    const Tensor x = g.saved(0), y = g.saved(1);
    if (g.wants(0)) g.set(0, sum_to(mul(g.dy(), mul(y, masked_fill(pow(x, sub(y, 1.0)), eq(y, 0), 0))), g.input(0)));
    if (g.wants(1)) {
      const Tensor zero = eq(x, 0);
      g.set(1, sum_to(mul(g.dy(), mul(g.saved(2), masked_fill(log(masked_fill(x, zero, 1)), zero, 0))), g.input(1)));
    }
  });
}

Tensor add(const Tensor& x, double s) {
  Tensor y;
  const Operand a = compute(OpId::add, Binary::add, x, s, false, y);
  warn_of_lost_eps(y.dtype(), s);
  return record(OpId::add, y, {a}, {}, [](Backward& g) { g.set(0, g.dy()); });
}
Tensor sub(const Tensor& x, double s) {
  Tensor y;
  const Operand a = compute(OpId::sub, Binary::sub, x, s, false, y);
  return record(OpId::sub, y, {a}, {}, [](Backward& g) { g.set(0, g.dy()); });
}
Tensor sub(double s, const Tensor& x) {
  Tensor y;
  const Operand a = compute(OpId::sub, Binary::sub, x, s, true, y);
  return record(OpId::sub, y, {a}, {}, [](Backward& g) { g.set(0, neg(g.dy())); });
}
Tensor mul(const Tensor& x, double s) {
  Tensor y;
  const Operand a = compute(OpId::mul, Binary::mul, x, s, false, y);
  return record(OpId::mul, y, {a}, {}, [s](Backward& g) { g.set(0, mul(g.dy(), s)); });
}
Tensor div(const Tensor& x, double s) {
  Tensor y;
  const Operand a = compute(OpId::div, Binary::div, x, s, false, y);
  return record(OpId::div, y, {a}, {}, [s](Backward& g) { g.set(0, div(g.dy(), s)); });
}
Tensor div(double s, const Tensor& x) {
  Tensor y;
  const Operand a = compute(OpId::div, Binary::div, x, s, true, y);
  return record(OpId::div, y, {a}, {a.value}, [s](Backward& g) {
    const Tensor x = g.saved(0);
    g.set(0, neg(mul(g.dy(), div(div(s, x), x))));
  });
}
Tensor pow(const Tensor& x, double s) {
  Tensor y;
  const Operand a = compute(OpId::pow, Binary::pow, x, s, false, y);
  return record(OpId::pow, y, {a}, {a.value}, [s](Backward& g) {
    if (s == 0) return g.set(0, mul(g.dy(), 0.0));
    g.set(0, mul(g.dy(), mul(pow(g.saved(0), s - 1), s)));
  });
}

// clang-format off
Tensor eq(const Tensor& a, const Tensor& b) { return compare(Compare::eq, a, b); }
Tensor ne(const Tensor& a, const Tensor& b) { return compare(Compare::ne, a, b); }
Tensor lt(const Tensor& a, const Tensor& b) { return compare(Compare::lt, a, b); }
Tensor le(const Tensor& a, const Tensor& b) { return compare(Compare::le, a, b); }
Tensor gt(const Tensor& a, const Tensor& b) { return compare(Compare::gt, a, b); }
Tensor ge(const Tensor& a, const Tensor& b) { return compare(Compare::ge, a, b); }
Tensor eq(const Tensor& a, double b) { return compare(Compare::eq, a, b); }
Tensor ne(const Tensor& a, double b) { return compare(Compare::ne, a, b); }
Tensor lt(const Tensor& a, double b) { return compare(Compare::lt, a, b); }
Tensor le(const Tensor& a, double b) { return compare(Compare::le, a, b); }
Tensor gt(const Tensor& a, double b) { return compare(Compare::gt, a, b); }
Tensor ge(const Tensor& a, double b) { return compare(Compare::ge, a, b); }
// clang-format on

// ---- selection: bits are moved, not computed ----------------------------------------------------

namespace {
void require_condition(const char* op, const Tensor& c) {
  require_defined(op, c, "the condition");
  if (c.dtype() != Dtype::boolean && c.dtype() != Dtype::u8)
    fail(op, fmt::format("a condition of {} given, boolean wanted", name(c.dtype())), "compare first: gt(x, 0), ne(x, 0), ...");
}
Tensor choose(const Tensor& c, const Tensor& a, const Tensor& b, const Shape& shape) {
  Tensor y = make_tensor(shape, a.dtype());
  kernels::select(cpu_queue(), y.dtype(), static_cast<const std::uint8_t*>(data(c)), data(a), data(b), mutable_data(y), strided({&y, &c, &a, &b}));
  return y;
}
}  // namespace

Tensor where(const Tensor& c, const Tensor& a, const Tensor& b) {
  require_condition("where", c);
  require_defined("where", a, "the first input");
  require_defined("where", b, "the second input");
  const Dtype dtype = compute_dtype(OpId::where, {&a, &b});
  const Operand x = operand(a, dtype), z = operand(b, dtype);
  const Shape shape = broadcast_shapes("where", c.shape(), broadcast_shapes("where", a.shape(), b.shape()));
  return record(OpId::where, choose(c, x.value, z.value, shape), {x, z}, {c}, [](Backward& g) {
    const Tensor c = g.saved(0);
    if (g.wants(0)) g.set(0, sum_to(where(c, g.dy(), zeros({}, {.dtype = g.dy().dtype()})), g.input(0)));
    if (g.wants(1)) g.set(1, sum_to(masked_fill(g.dy(), c, 0), g.input(1)));
  });
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  require_condition("masked_fill", mask);
  require_defined("masked_fill", x, "the input");
  const Operand a = operand(OpId::masked_fill, x);
  const Tensor v = full({}, value, {.dtype = a.value.dtype()});
  const Tensor y = choose(mask, v, a.value, broadcast_shapes("masked_fill", x.shape(), mask.shape()));
  return record(OpId::masked_fill, y, {a}, {mask}, [](Backward& g) { g.set(0, sum_to(masked_fill(g.dy(), g.saved(0), 0), g.input(0))); });
}

Tensor tril(const Tensor& x) {
  require_defined("tril", x, "the input");
  if (x.dim() < 2) fail("tril", fmt::format("a tensor of shape {} given, two dimensions or more wanted", to_string(x.shape())));
  const auto rows = x.size(-2), columns = x.size(-1);
  const Tensor above = gt(arange(columns, {.dtype = Dtype::i64}).reshape({1, columns}), arange(rows, {.dtype = Dtype::i64}).reshape({rows, 1}));
  const Operand a = operand(OpId::tril, x);
  const Tensor y = choose(above, zeros({}, {.dtype = a.value.dtype()}), a.value, x.shape());
  return record(OpId::tril, y, {a}, {}, [](Backward& g) { g.set(0, tril(g.dy())); });
}

// swiglu: storage T, compute f32, one rounding on store. Saves gate and up, from which those that would save y make it again.
Tensor swiglu(const Tensor& gate, const Tensor& up) {
  require_floating("swiglu", gate, "gate");
  require_floating("swiglu", up, "up");
  if (gate.shape() != up.shape())
    fail("swiglu", fmt::format("gate {} and up {} given, equal shapes wanted", to_string(gate.shape()), to_string(up.shape())));
  const Dtype dtype = compute_dtype(OpId::swiglu, {&gate, &up});
  const Operand a = dense(operand(gate, dtype)), b = dense(operand(up, dtype));
  const auto make = [](const std::vector<Tensor>& v) {
    Tensor y = make_tensor(v[0].shape(), v[0].dtype());
    const PartScope timed(Part::activation);
    kernels::swiglu(cpu_queue(), y.dtype(), data(v[0]), data(v[1]), mutable_data(y), y.numel());
    return y;
  };
  Tensor y = record(OpId::swiglu, make({a.value, b.value}), {a, b}, {a.value, b.value}, [](Backward& g) {
    const Tensor gate = g.saved(0), up = g.saved(1);
    if (g.create_graph()) return g.through({gate, up}, [](const std::vector<Tensor>& v) { return mul(silu(v[0]), v[1]); });
    const Tensor dy = dense(g.dy()), dgate = make_tensor(gate.shape(), gate.dtype()), dup = make_tensor(up.shape(), up.dtype());
    const PartScope timed(Part::activation);
    kernels::swiglu_backward(cpu_queue(), gate.dtype(), data(gate), data(up), data(dy), mutable_data(dgate), mutable_data(dup), gate.numel());
    g.set(0, dgate);
    g.set(1, dup);
  });
  let_remake(y, {a.value, b.value}, make);
  return y;
}

}  // namespace mezzo
