// reduce.cpp - sums and their like along dimensions. Storage T, accumulate f32 by a fixed tree, one rounding on store.
#include <cmath>

#include "ops/common.h"

namespace mezzo {
namespace {

using kernels::Reduce;

/// Which dimensions go, and what is left.
struct Dims {
  std::array<bool, Shape::kMax> reduced{};
  bool all = false;        // every dimension was named, or none
  Shape kept, keepdim;     // the result's shape without and with the reduced dimensions
  std::int64_t count = 1;  // elements in each sum
};

Dims resolve(const char* op, const Tensor& x, const std::vector<int>& dims) {
  require_defined(op, x, "the input");
  Dims r;
  r.all = dims.empty();
  for (const int d : dims) {
    const auto i = static_cast<std::size_t>(wrap_dim(op, d, x.dim()));
    if (r.reduced[i]) fail(op, fmt::format("dim {} given twice", i));
    if (x.dim() > 0) r.reduced[i] = true;
  }
  for (std::size_t i = 0; i < x.shape().size(); ++i) {
    if (r.all) r.reduced[i] = true;
    const auto n = x.shape()[i];
    if (r.reduced[i]) r.count *= n;
    else r.kept.push_back(n);
    r.keepdim.push_back(r.reduced[i] ? 1 : n);
  }
  r.all = r.kept.size() == 0;
  return r;
}

/// The kernel's (outer, n, inner) view: x itself when the reduced dimensions stand together, else a copy with them last.
Tensor run(Reduce kernel, const Tensor& x, const Dims& d, Dtype to, double scale) {
  Tensor y = make_tensor(d.kept, to);
  Around a;
  Tensor v = x;
  int state = 0;  // before, inside, after the reduced run
  bool together = true;
  for (std::size_t i = 0; i < x.shape().size(); ++i) {
    const auto s = x.shape()[i];
    if (d.reduced[i]) {
      together = together && (state < 2 || s == 1);
      state = state == 0 ? 1 : state;
      a.n *= s;
    } else if (state == 0) a.outer *= s;
    else {
      if (s != 1) state = 2;
      a.inner *= s;
    }
  }
  if (!together) {
    std::vector<int> order;
    for (const bool reduced : {false, true})
      for (int i = 0; i < x.dim(); ++i)
        if (d.reduced[static_cast<std::size_t>(i)] == reduced) order.push_back(i);
    const GradMode off(false);
    v = x.permute(order);
    a = {d.kept.numel(), d.count, 1};
  }
  v = dense(v);
  kernels::reduce(cpu_queue(), kernel, x.dtype(), to, data(v), mutable_data(y), a.outer, a.n, a.inner, scale);
  return y;
}

/// A reduced tensor (gradient or result) as it broadcasts against the input again.
Tensor keep(const Tensor& t, const Shape& keepdim) { return t.reshape(keepdim); }

Tensor finish(const Tensor& y, const Dims& d, bool keepdim) { return keepdim ? y.reshape(d.keepdim) : y; }

Tensor linear_reduction(OpId whole, OpId partial, const Tensor& x, const ReduceOptions& o, bool mean) {
  const Dims d = resolve(name(whole), x, o.dims);
  const OpId op = d.all ? whole : partial;
  const Dtype in = x.dtype();
  Dtype to = is_floating(in) ? compute_dtype(op, in) : mean ? Dtype::f32 : Dtype::i64;
  if (o.dtype) to = *o.dtype;
  Tensor v = x;
  if (is_floating(in)) {
    if (to == Dtype::f64 && in != to) v = x.detach().to(to);  // who asks for f64 wants its sums
  } else if (is_floating(to)) {
    v = x.to(to);
  } else if (in == Dtype::boolean) {
    v = x.to(Dtype::i64);
  }
  const double scale = mean ? 1.0 / static_cast<double>(d.count) : 1;
  const Tensor y = run(Reduce::sum, v, d, to, scale);
  return finish(record(op, y, {x}, {},
                       [shape = x.shape(), keepdim = d.keepdim, scale](Backward& g) {
                         const Tensor dy = keep(scale == 1 ? g.dy() : mul(g.dy(), scale), keepdim);
                         g.set(0, dy.expand(shape));
                       }),
                d, o.keepdim);
}

/// 16-bit tensors are reduced in f32 by composed ops, and rounded once at the end.
Tensor widened(const Tensor& x) { return is_16bit(x.dtype()) ? x.to(Dtype::f32) : x; }

}  // namespace

Tensor sum(const Tensor& x, const ReduceOptions& o) { return linear_reduction(OpId::sum, OpId::sum_dim, x, o, false); }
Tensor mean(const Tensor& x, const ReduceOptions& o) { return linear_reduction(OpId::mean, OpId::mean_dim, x, o, true); }

namespace {
/// The product of all other elements, exact where some are zero: each row of an n x n grid leaves out its own element.
Tensor product_of_others(const Tensor& x, const Dims& d) {
  std::vector<int> order, back(static_cast<std::size_t>(x.dim()));
  for (const bool reduced : {false, true})
    for (int i = 0; i < x.dim(); ++i)
      if (d.reduced[static_cast<std::size_t>(i)] == reduced) order.push_back(i);
  for (std::size_t i = 0; i < order.size(); ++i) back[static_cast<std::size_t>(order[i])] = static_cast<int>(i);
  const Tensor moved = x.permute(order);
  const auto n = d.count;
  const Tensor rows = moved.reshape({d.kept.numel(), 1, n}).expand({d.kept.numel(), n, n});
  const Tensor self = eq(arange(n, {.dtype = Dtype::i64}).reshape({n, 1}), arange(n, {.dtype = Dtype::i64}));
  return prod(masked_fill(rows, self, 1), {.dims = {2}}).reshape(moved.shape()).permute(back);
}
}  // namespace

Tensor prod(const Tensor& x, const ReduceOptions& o) {
  require_floating("prod", x);
  const Dims d = resolve("prod", x, o.dims);
  const Dtype to = o.dtype.value_or(compute_dtype(OpId::prod, x.dtype()));
  const Tensor y = run(Reduce::prod, x, d, to, 1);
  return finish(record(OpId::prod, y, {x}, {x, y},
                       [d](Backward& g) {
                         const Tensor x = g.saved(0), dy = keep(g.dy(), d.keepdim);
                         const bool zeros = sum(eq(x.detach(), 0)).item() > 0;
                         g.set(0, mul(dy, zeros ? product_of_others(x, d) : div(keep(g.saved(1), d.keepdim), x)));
                       }),
                d, o.keepdim);
}

Tensor amax(const Tensor& x, const ReduceOptions& o) {
  require_floating("amax", x);
  const Dims d = resolve("amax", x, o.dims);
  if (d.count == 0) fail("amax", fmt::format("a tensor of shape {} given: no elements to choose from", to_string(x.shape())));
  const Tensor y = run(Reduce::amax, x, d, o.dtype.value_or(compute_dtype(OpId::amax, x.dtype())), 1);
  return finish(record(OpId::amax, y, {x}, {x, y},
                       [d](Backward& g) {
                         const Tensor x = g.saved(0).detach(),
                                      largest = eq(x, keep(g.saved(1).detach(), d.keepdim)).to(x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32);
                         std::vector<int> dims;
                         for (int i = 0; i < x.dim(); ++i)
                           if (d.reduced[static_cast<std::size_t>(i)]) dims.push_back(i);
                         const Tensor share = dims.empty() ? largest : div(largest, sum(largest, {.dims = dims, .keepdim = true}));
                         g.set(0, mul(keep(g.dy(), d.keepdim), share));
                       }),
                d, o.keepdim);
}

// var: composed in f32 (f64 for f64): mean, then the sum of squares around it.
Tensor var(const Tensor& x, const VarOptions& o) {
  require_floating("var", x);
  const Dims d = resolve("var", x, o.dims);
  const Dtype to = o.dtype.value_or(compute_dtype(OpId::var, x.dtype()));
  const Tensor w = widened(x), around_mean = sub(w, mean(w, {.dims = o.dims, .keepdim = true}));
  const Tensor s = sum(mul(around_mean, around_mean), {.dims = o.dims, .keepdim = o.keepdim});
  return div(s, std::max(0.0, static_cast<double>(d.count) - o.correction)).to(to);
}

// norm: f32 accumulation of |x|^p. At zero the gradient of the 2-norm is 0, as in torch.
Tensor norm(const Tensor& x, const VectorNormOptions& o) {
  require_floating("norm", x);
  if (!(o.p > 0)) fail("norm", fmt::format("p = {} given, p > 0 wanted", o.p));
  const Dims d = resolve("norm", x, o.dims);
  const Dtype to = o.dtype.value_or(compute_dtype(OpId::norm, x.dtype()));
  if (o.p != 2) {
    const Tensor a = abs(widened(x));
    if (std::isinf(o.p)) return amax(a, {.dims = o.dims, .keepdim = o.keepdim}).to(to);
    if (o.p == 1) return sum(a, {.dims = o.dims, .keepdim = o.keepdim}).to(to);
    return pow(sum(pow(a, o.p), {.dims = o.dims, .keepdim = o.keepdim}), 1 / o.p).to(to);
  }
  const Tensor squares = run(Reduce::sum_squares, x, d, x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32, 1);
  const Tensor wide = make_tensor(squares.shape(), squares.dtype());
  kernels::unary(cpu_queue(), kernels::Unary::sqrt, wide.dtype(), data(squares), mutable_data(wide), wide.numel());
  const Operand y = operand(wide, to);
  return finish(record(OpId::norm, y.value, {x}, {x, y.value},
                       [d](Backward& g) {
                         const Tensor x = g.saved(0), y = keep(g.saved(1), d.keepdim), zero = eq(y, 0);
                         g.set(0, mul(x, masked_fill(div(keep(g.dy(), d.keepdim), masked_fill(y, zero, 1)), zero, 0)));
                       }),
                d, o.keepdim);
}

// cumsum: accumulate f32 in order. Backward is cumsum from the end.
namespace {
Tensor cumulative(const Tensor& x, int dim, bool reverse) {
  const Operand a = dense(Operand(x));
  const Dtype to = reverse ? x.dtype() : compute_dtype(OpId::cumsum, x.dtype());
  const Tensor y = make_tensor(x.shape(), to);
  const Around s = around(x.shape(), dim);
  kernels::cumsum(cpu_queue(), x.dtype(), to, data(a.value), mutable_data(y), s.outer, s.n, s.inner, reverse);
  return record(OpId::cumsum, y, {a}, {}, [dim, reverse](Backward& g) { g.set(0, cumulative(g.dy(), dim, !reverse)); });
}
}  // namespace
Tensor cumsum(const Tensor& x, int dim) {
  require_floating("cumsum", x);
  dim = wrap_dim("cumsum", dim, x.dim());
  if (x.dim() == 0) return x.clone();
  return cumulative(x, dim, false);
}

}  // namespace mezzo
