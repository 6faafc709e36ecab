// matmul.cpp - matrix products and linear. Storage T, products exact, accumulate f32, one rounding to nearest even on store.
#include <optional>

#include "ops/product.h"

namespace mezzo {
namespace {

/// How a kernel reads the last two dimensions: as stored, or transposed.
struct MatrixView {
  Tensor t;
  bool transposed = false;
  std::int64_t ld = 0, batch_stride = 0;
};

/// With `transposed`, only that way.
MatrixView view_matrix(const Tensor& t, std::optional<bool> transposed = {}) {
  const auto find = [transposed](const Tensor& v, MatrixView& out) {
    const auto& impl = *v.impl();
    const auto d = impl.shape.size();
    const auto rows = impl.shape[d - 2], cols = impl.shape[d - 1], sr = impl.strides[d - 2], sc = impl.strides[d - 1];
    if (transposed != true && (sc == 1 || cols == 1) && (sr >= cols || rows == 1)) {
      out.transposed = false;
      out.ld = rows == 1 ? std::max<std::int64_t>(cols, 1) : sr;
    } else if (transposed != false && (sr == 1 || rows == 1) && (sc >= rows || cols == 1)) {
      out.transposed = true;
      out.ld = cols == 1 ? std::max<std::int64_t>(rows, 1) : sc;
    } else return false;
    out.t = v;
    out.batch_stride = d == 3 ? (impl.shape[0] == 1 ? 0 : impl.strides[0]) : 0;
    return true;
  };
  MatrixView v;
  if (!find(t, v)) find(transposed == true ? dense(t.transpose(-2, -1)).transpose(-2, -1) : dense(t), v);
  return v;
}

/// What a product of two matrices ends with; undefined: nothing. `a`, `b`: with which its sum goes on.
struct Ending {
  Tensor bias, residual, a, b;
};

void run(const Tensor& out, const Tensor& a, const Tensor& b, bool accumulate, const Ending& end = {}) {
  const MatrixView x = view_matrix(a), y = view_matrix(b);
  kernels::Gemm p;
  p.m = a.size(-2);
  p.k = a.size(-1);
  p.n = b.size(-1);
  p.a = a.dtype();
  p.b = b.dtype();
  p.c = out.dtype();
  p.trans_a = x.transposed;
  p.trans_b = y.transposed;
  p.lda = x.ld;
  p.ldb = y.ld;
  p.ldc = p.n;
  p.beta = accumulate ? 1 : 0;
  p.batch = out.dim() == 3 ? out.size(0) : 1;
  p.stride_a = x.batch_stride;
  p.stride_b = y.batch_stride;
  p.stride_c = p.m * p.n;
  if (end.bias.defined()) {
    p.bias = data(end.bias);
    p.bias_dtype = end.bias.dtype();
  }
  if (end.residual.defined()) p.residual = data(end.residual);
  MatrixView tail_x, tail_y;  // which live as long as the product
  if (end.a.defined()) {
    tail_x = view_matrix(end.a, x.transposed);
    tail_y = view_matrix(end.b, y.transposed);
    p.tail = {data(tail_x.t), data(tail_y.t), end.a.size(-1), tail_x.ld, tail_y.ld};
  }
  kernels::gemm(cpu_queue(), p, data(x.t), data(y.t), mutable_data(out));
}

/// Whether a policy lets the widest operand of this product decide.
bool by_widest(OpId op) { return context().autocast && context().policy[static_cast<std::size_t>(op)] == amp::Cast::widest; }

/// Operands of a product in one dtype, or the Error that says how. An addend votes where the widest decides.
std::array<Operand, 2> pair(OpId op, const Tensor& a, const Tensor& b, const Tensor& addend = {}) {
  require_floating(name(op), a, "the first input");
  require_floating(name(op), b, "the second input");
  if (by_widest(op)) {
    const Dtype widest = compute_dtype(op, {&a, &b, &addend});
    return {operand(a, widest), operand(b, widest)};
  }
  std::array<Operand, 2> p{operand(op, a), operand(op, b)};
  if (p[0].value.dtype() != p[1].value.dtype())
    fail(name(op), fmt::format("dtypes {} and {} given, equal ones wanted", name(p[0].value.dtype()), name(p[1].value.dtype())),
         "convert one with to(), or run inside amp::autocast, which casts both (f64 excepted)");
  return p;
}

[[noreturn]] void fail_inner(const char* op, const Tensor& a, const Tensor& b) {
  fail(op, fmt::format("shapes {} and {} given: the inner sizes differ", to_string(a.shape()), to_string(b.shape())));
}

/// Swaps the last two dimensions.
Tensor t(const Tensor& x) { return x.transpose(-2, -1); }

/// The op on operands of two or three dimensions with equal batches.
Tensor recorded_product(OpId op, const Operand& a, const Operand& b) {
  const PartScope timed(Part::gemm_forward);
  const Tensor y = product(a.value, b.value, a.value.dtype());
  const bool round = context().policy.rounds_like_torch();
  return record(op, y, {a, b}, {a.value, b.value}, [round](Backward& g) {
    const Tensor a = g.saved(0), b = g.saved(1);
    const Tensor dy = g.dy().to(a.dtype());
    if (g.create_graph()) {
      if (g.wants(0)) g.set(0, matmul(dy, t(b)));
      if (g.wants(1)) g.set(1, matmul(t(a), dy));
      return;
    }
    if (g.wants(0)) give_product(g, 0, dy, t(b), round);
    if (g.wants(1)) give_product(g, 1, t(a), dy, round);
  });
}

}  // namespace

Tensor as_rows(const Tensor& t, std::int64_t rows, std::int64_t cols) {
  return make_view(t, {rows, cols}, contiguous_strides({rows, cols}), t.impl()->offset);
}

Tensor turned(const Tensor& m) {
  const auto& i = *m.impl();
  return make_view(m, {i.shape[1], i.shape[0]}, {i.strides[1], i.strides[0]}, i.offset);
}

Tensor product(const Tensor& a, const Tensor& b, Dtype to) {
  const auto m = a.size(-2), n = b.size(-1);
  Tensor out = a.dim() == 3 || b.dim() == 3 ? make_tensor({a.dim() == 3 ? a.size(0) : b.size(0), m, n}, to) : make_tensor({m, n}, to);
  run(out, a, b, false);
  return out;
}

void product_into(const Tensor& out, const Tensor& a, const Tensor& b, bool accumulate) { run(out, a, b, accumulate); }

void give_product(Backward& g, int input, const Tensor& a, const Tensor& b, bool round_first) {
  const PartScope timed(input == 0 ? Part::gemm_input_grad : Part::gemm_weight_grad);
  const Dtype wanted = g.input(input).dtype, low = a.dtype();
  const bool direct = wanted == low || (wanted == Dtype::f32 && is_16bit(low) && !round_first);
  if (direct && a.dim() == 2 && b.dim() == 2) {
    if (const auto s = g.sink(input); s.buffer.defined()) return product_into(s.buffer, a, b, s.accumulate);
  }
  g.set(input, product(a, b, direct ? wanted : low));
}

void give_factors(Backward& g, int i, int j, const Tensor& dy, const Tensor& x, const Tensor& w, bool round_first) {
  const auto rows = dy.size(0), cols = w.size(1);
  if (g.create_graph()) {
    if (g.wants(i)) g.set(i, matmul(dy, w).reshape(x.shape()));
    if (g.wants(j)) g.set(j, matmul(t(dy), x.reshape({rows, cols})));
    return;
  }
  if (g.wants(i)) {
    const PartScope timed(Part::gemm_input_grad);
    const Dtype to = g.input(i).dtype == Dtype::f32 && is_16bit(x.dtype()) && !round_first ? Dtype::f32 : x.dtype();
    const Tensor waiting = round_first || g.input(i).dtype != to ? Tensor() : g.take_existing(i);
    const Tensor dx = waiting.defined() ? waiting : make_tensor(x.shape(), to);
    run(as_rows(dx, rows, cols), dy, w, waiting.defined());
    g.set(i, dx);
  }
  if (g.wants(j)) give_product(g, j, t(dy), as_rows(x, rows, cols), round_first);
}

void give_bias(Backward& g, int input, const Tensor& d) {
  if (!g.wants(input)) return;
  const auto s = g.input(input).dtype == Dtype::f32 && d.dtype() != Dtype::f64 ? g.sink(input) : Backward::Sink{};
  if (s.buffer.defined())
    kernels::sum_rows(cpu_queue(), d.dtype(), data(d), static_cast<float*>(mutable_data(s.buffer)), d.size(0), d.size(1), s.accumulate);
  else g.set(input, sum_to(d, g.input(input)));
}

Tensor recorded_product(OpId op, const Tensor& a, const Tensor& b) {
  const auto p = pair(op, a, b);
  return recorded_product(op, p[0], p[1]);
}

Tensor mm(const Tensor& a, const Tensor& b) {
  const auto p = pair(OpId::mm, a, b);
  if (a.dim() != 2 || b.dim() != 2)
    fail("mm", fmt::format("shapes {} and {} given, two matrices wanted", to_string(a.shape()), to_string(b.shape())), "matmul takes batches");
  if (a.size(1) != b.size(0)) fail_inner("mm", a, b);
  return recorded_product(OpId::mm, p[0], p[1]);
}

Tensor bmm(const Tensor& a, const Tensor& b) {
  const auto p = pair(OpId::bmm, a, b);
  if (a.dim() != 3 || b.dim() != 3 || a.size(0) != b.size(0))
    fail("bmm", fmt::format("shapes {} and {} given, two batches of matrices of one length wanted", to_string(a.shape()), to_string(b.shape())));
  if (a.size(2) != b.size(1)) fail_inner("bmm", a, b);
  return recorded_product(OpId::bmm, p[0], p[1]);
}

Tensor matmul(const Tensor& a, const Tensor& b) {
  require_defined("matmul", a, "the first input");
  require_defined("matmul", b, "the second input");
  if (a.dim() == 0 || b.dim() == 0)
    fail("matmul", fmt::format("shapes {} and {} given, one dimension or more wanted", to_string(a.shape()), to_string(b.shape())));
  if (a.dim() == 1) return matmul(a.unsqueeze(0), b).squeeze(b.dim() == 1 ? 0 : -2);
  if (b.dim() == 1) return matmul(a, b.unsqueeze(1)).squeeze(-1);
  if (a.size(-1) != b.size(-2)) fail_inner("matmul", a, b);
  if (a.dim() == 2 && b.dim() == 2) {
    const auto p = pair(OpId::matmul, a, b);
    return recorded_product(OpId::matmul, p[0], p[1]);
  }
  if (b.dim() == 2) {  // one matrix for every row of a
    Shape shape = a.shape();
    shape[shape.size() - 1] = b.size(1);
    return matmul(a.reshape({-1, a.size(-1)}), b).reshape(shape);
  }
  // Batches broadcast to one list of products.
  const Shape batch = broadcast_shapes("matmul", Shape(std::span(a.shape().begin(), a.shape().size() - 2)),
                                       Shape(std::span(b.shape().begin(), b.shape().size() - 2)));
  const auto flat = [&](const Tensor& x) {
    Shape s = batch;
    s.push_back(x.size(-2));
    s.push_back(x.size(-1));
    return (x.shape() == s ? x : x.expand(s)).reshape({batch.numel(), x.size(-2), x.size(-1)});
  };
  const Tensor x = flat(a), y = flat(b);
  const auto p = pair(OpId::matmul, x, y);
  Shape out = batch;
  out.push_back(a.size(-2));
  out.push_back(b.size(-1));
  return recorded_product(OpId::matmul, p[0], p[1]).reshape(out);
}

Tensor addmm(const Tensor& c, const Tensor& a, const Tensor& b) {
  require_floating("addmm", c, "c");
  const auto p = pair(OpId::addmm, a, b, c);
  if (a.dim() != 2 || b.dim() != 2)
    fail("addmm", fmt::format("shapes {} and {} given, two matrices wanted", to_string(a.shape()), to_string(b.shape())));
  if (a.size(1) != b.size(0)) fail_inner("addmm", a, b);
  const Shape shape{a.size(0), b.size(1)};
  if (broadcast_shapes("addmm", c.shape(), shape) != shape)
    fail("addmm", fmt::format("c has shape {}, one that broadcasts to {} wanted", to_string(c.shape()), to_string(shape)));
  const Operand co = by_widest(OpId::addmm) ? operand(c, p[0].value.dtype()) : operand(OpId::addmm, c);
  if (co.value.dtype() != p[0].value.dtype())
    fail("addmm", fmt::format("c is {} and the matrices are {}, equal dtypes wanted", name(c.dtype()), name(p[0].value.dtype())),
         "convert with to()");
  const Tensor y = make_tensor(shape, p[0].value.dtype());
  copy_elements(y, co.value);
  const PartScope timed(Part::gemm_forward);
  run(y, p[0].value, p[1].value, true);
  const bool round = context().policy.rounds_like_torch();
  return record(OpId::addmm, y, {co, p[0], p[1]}, {p[0].value, p[1].value}, [round](Backward& g) {
    const Tensor a = g.saved(0), b = g.saved(1), dy = g.dy().to(a.dtype());
    if (g.wants(0)) g.set(0, sum_to(dy, g.input(0)));
    if (g.create_graph()) {
      if (g.wants(1)) g.set(1, matmul(dy, t(b)));
      if (g.wants(2)) g.set(2, matmul(t(a), dy));
      return;
    }
    if (g.wants(1)) give_product(g, 1, dy, t(b), round);
    if (g.wants(2)) give_product(g, 2, t(a), dy, round);
  });
}

// linear: bias and what joins added in f32 before the one rounding (torch's policy: rounded first). Saves x and w as they were multiplied. The
// weight's gradient goes from the product into an f32 leaf's buffer, the input's into what already waits for it.
Tensor detail::linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual, const Joined& joined) {
  if (joined.x.defined() && context().policy.rounds_like_torch()) return linear(x, w, b, linear(joined.x, joined.w, {}, residual));
  const auto p = pair(OpId::linear, x, w, b);
  MEZZO_CHECK(!joined.x.defined() || (joined.w.dim() == 2 && joined.w.size(0) == w.size(0) && joined.x.size(-1) == joined.w.size(1) &&
                                      joined.x.shape().without(joined.x.dim() - 1) == x.shape().without(x.dim() - 1)));
  if (w.dim() != 2) fail("linear", fmt::format("w has shape {}, (out, in) wanted", to_string(w.shape())));
  if (x.dim() == 0 || x.size(-1) != w.size(1))
    fail("linear", fmt::format("x {} and w {}: inner sizes differ", to_string(x.shape()), to_string(w.shape())), "w is (out, in)");
  if (b.defined() && b.shape() != Shape{w.size(0)}) fail("linear", fmt::format("b has shape {}, ({},) wanted", to_string(b.shape()), w.size(0)));
  const Dtype dtype = p[0].value.dtype();
  Operand bo(b);
  if (b.defined()) {
    require_floating("linear", b, "the bias");
    bo = dense(context().policy.rounds_like_torch() ? operand(OpId::linear, b) : b);
    if (bo.value.dtype() != dtype && bo.value.dtype() != Dtype::f32) bo = operand(b, dtype == Dtype::f64 ? dtype : Dtype::f32);
    if (dtype == Dtype::f64 && bo.value.dtype() != dtype) bo = operand(b, dtype);
  }
  Shape shape = x.shape();
  shape[shape.size() - 1] = w.size(0);
  const Operand a = dense(p[0]);
  const Operand r = residual.defined() ? dense(operand(residual, dtype)) : Operand();
  const Operand jx = joined.x.defined() ? dense(operand(joined.x, dtype)) : Operand(), jw = joined.x.defined() ? operand(joined.w, dtype) : Operand();
  const auto in = w.size(1), out = w.size(0), n = in ? x.numel() / in : shape.numel() / std::max<std::int64_t>(out, 1);
  const Tensor y = make_tensor(shape, dtype);
  const PartScope timed(Part::gemm_forward);
  Ending end{bo.value, r.value, {}, {}};
  if (jx.value.defined()) end.a = as_rows(jx.value, n, joined.w.size(1)), end.b = turned(jw.value);
  run(as_rows(y, n, out), as_rows(a.value, n, in), turned(p[1].value), false, end);
  const bool round = context().policy.rounds_like_torch();
  const auto give = [=](Backward& g, bool joins) {
    if (g.wants(3)) g.set(3, g.dy());
    const Tensor x = g.saved(0);
    const Tensor dy = g.create_graph() ? g.dy().to(x.dtype()).reshape({n, out}) : as_rows(dense(g.dy()), n, out);
    give_factors(g, 0, 1, dy, x, g.saved(1), round);
    if (joins) give_factors(g, 4, 5, dy, g.saved(2), g.saved(3), round);
    if (!g.create_graph()) return give_bias(g, 2, dy);
    if (g.wants(2)) g.set(2, sum_to(dy, g.input(2)));
  };
  if (!jx.value.defined()) return record(OpId::linear, y, {a, p[1], bo, r}, {a.value, p[1].value}, [give](Backward& g) { give(g, false); });
  return record(OpId::linear, y, {a, p[1], bo, r, jx, jw}, {a.value, p[1].value, jx.value, jw.value}, [give](Backward& g) { give(g, true); });
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) { return detail::linear(x, w, b, {}); }
Tensor linear_add(const Tensor& residual, const Tensor& x, const Tensor& w, const Tensor& b) {
  require_floating("linear_add", residual, "the residual");
  Shape shape = x.shape();
  if (shape.size()) shape[shape.size() - 1] = w.size(0);
  if (residual.shape() != shape)
    fail("linear_add", fmt::format("the residual has shape {}, the result's {} wanted", to_string(residual.shape()), to_string(shape)));
  return detail::linear(x, w, b, residual);
}

}  // namespace mezzo
