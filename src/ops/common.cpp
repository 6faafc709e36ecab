// common.cpp - contiguous copies, sums over broadcast dimensions, checks of inputs.
#include "ops/common.h"

namespace mezzo {

Tensor dense(const Tensor& t) {
  if (t.is_contiguous()) return t;
  Tensor c = make_tensor(t.impl()->shape, t.dtype());
  copy_elements(c, t);
  return c;
}

Tensor sum_to(const Tensor& g, const autograd::TensorMeta& to) {
  if (g.shape() == to.shape) return g;
  ReduceOptions o;
  const int lead = g.dim() - to.shape.dim();
  for (int d = 0; d < g.dim(); ++d)
    if (d < lead || (to.shape[static_cast<std::size_t>(d - lead)] == 1 && g.size(d) != 1)) o.dims.push_back(d);
  o.keepdim = true;
  o.dtype = promote(g.dtype(), to.dtype);
  return (o.dims.empty() ? g : sum(g, o)).reshape(to.shape);
}

void require_floating(const char* op, const Tensor& t, const char* what) {
  require_defined(op, t, what);
  if (!is_floating(t.dtype())) fail(op, fmt::format("{} is {}, a floating dtype wanted", what, name(t.dtype())), "convert with to(f32)");
}

void require_index(const char* op, const Tensor& t, const char* what) {
  require_defined(op, t, what);
  if (t.dtype() != Dtype::i32 && t.dtype() != Dtype::i64) fail(op, fmt::format("{} is {}, i32 or i64 wanted", what, name(t.dtype())));
}

void check_indices(const char* op, const Tensor& index, std::int64_t n) {
  if (index.numel() == 0) return;
  std::int64_t bounds[2];
  const Tensor i = dense(index);
  kernels::index_bounds(cpu_queue(), i.dtype(), data(i), i.numel(), bounds);
  if (bounds[0] < 0 || bounds[1] >= n) fail(op, fmt::format("index {} given, 0 to {} wanted", bounds[0] < 0 ? bounds[0] : bounds[1], n - 1));
}

Around around(const Shape& shape, int d) {
  Around a;
  for (int i = 0; i < shape.dim(); ++i) {
    const auto s = shape[static_cast<std::size_t>(i)];
    (i < d ? a.outer : i == d ? a.n : a.inner) *= s;
  }
  return a;
}

Tensor reduce_loss(const Tensor& losses, Reduction r, double count) {
  if (r == Reduction::none) return losses;
  const Tensor s = sum(losses);
  return r == Reduction::sum ? s : div(s, count);
}

}  // namespace mezzo
