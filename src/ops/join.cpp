// join.cpp - joining, splitting and indexing. Elements are moved; sums of scatter_add are taken in f32 and rounded once.
#include "ops/common.h"

namespace mezzo {

namespace {
Tensor join(OpId op, const std::vector<Tensor>& tensors, int dim) {
  if (tensors.empty()) fail("cat", "no tensors given, at least one wanted");
  for (const auto& t : tensors) require_defined("cat", t, "an input");
  const int n = tensors[0].dim();
  if (n == 0) fail("cat", "0-dim tensors given", "stack joins them along a new dimension");
  dim = wrap_dim("cat", dim, n);
  const auto d = static_cast<std::size_t>(dim);
  Shape shape = tensors[0].shape();
  shape[d] = 0;
  std::vector<Operand> operands;
  std::vector<std::int64_t> starts;
  std::vector<const Tensor*> voters;
  for (const auto& t : tensors) {
    if (t.dim() != n || t.shape().without(dim) != tensors[0].shape().without(dim))
      fail("cat", fmt::format("shapes {} and {} given, equal sizes but for dim {} wanted", to_string(tensors[0].shape()), to_string(t.shape()), dim));
    voters.push_back(&t);
    starts.push_back(shape[d]);
    shape[d] += t.size(dim);
  }
  Tensor y = make_tensor(shape, compute_dtype(op, voters));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    auto layout = make_view(y, tensors[i].shape(), y.impl()->strides, starts[i] * y.impl()->strides[d]);
    copy_elements(layout, tensors[i]);  // converts on the way
    operands.emplace_back(tensors[i]);
  }
  if (!should_record(operands)) return y;
  const auto backward = [dim, starts](Backward& g) {
    for (std::size_t i = 0; i < starts.size(); ++i)
      if (g.wants(static_cast<int>(i)))
        g.set(static_cast<int>(i), g.dy().narrow(dim, starts[i], g.input(static_cast<int>(i)).shape[static_cast<std::size_t>(dim)]));
  };
  auto* node = new autograd::detail_node::FunctionNode<std::decay_t<decltype(backward)>>(backward);
  autograd::connect(*node, op, {&y, 1}, operands, {});
  return y;
}
}  // namespace

Tensor cat(const std::vector<Tensor>& tensors, int dim) { return join(OpId::cat, tensors, dim); }

Tensor stack(const std::vector<Tensor>& tensors, int dim) {
  if (tensors.empty()) fail("stack", "no tensors given, at least one wanted");
  std::vector<Tensor> rows;
  for (const auto& t : tensors) {
    require_defined("stack", t, "an input");
    if (t.shape() != tensors[0].shape())
      fail("stack", fmt::format("shapes {} and {} given, equal ones wanted", to_string(tensors[0].shape()), to_string(t.shape())));
    rows.push_back(t.unsqueeze(wrap_dim("stack", dim, t.dim() + 1)));
  }
  return join(OpId::stack, rows, wrap_dim("stack", dim, tensors[0].dim() + 1));
}

std::vector<Tensor> split(const Tensor& x, std::int64_t size, int dim) {
  require_defined("split", x, "the input");
  if (x.dim() == 0 || size < 1)
    fail("split", fmt::format("size {} given for shape {}, 1 or more and a dimension wanted", size, to_string(x.shape())));
  dim = wrap_dim("split", dim, x.dim());
  std::vector<Tensor> out;
  const auto n = x.size(dim);
  for (std::int64_t i = 0; i < n || out.empty(); i += size) out.push_back(x.narrow(dim, i, std::min(size, n - i)));
  return out;
}

// index_select: rows of the tensor with `dim` in front, as embedding takes them.
Tensor index_select(const Tensor& x, int dim, const Tensor& index) {
  require_defined("index_select", x, "the input");
  require_index("index_select", index, "the index");
  if (x.dim() == 0 || index.dim() != 1)
    fail("index_select",
         fmt::format("x {} and index {} given, a dimension to select from and (n,) wanted", to_string(x.shape()), to_string(index.shape())));
  dim = wrap_dim("index_select", dim, x.dim());
  check_indices("index_select", index, x.size(dim));
  Shape shape = x.shape();
  for (int d = 0; d < x.dim(); ++d)
    if (d != dim) shape[static_cast<std::size_t>(d)] = 1;
  shape[static_cast<std::size_t>(dim)] = index.numel();
  Shape full = x.shape();
  full[static_cast<std::size_t>(dim)] = index.numel();
  return gather(x, dim, index.reshape(shape).expand(full));
}

namespace {
/// x without what an index smaller than it never reaches.
Tensor cut(const char* op, const Tensor& x, int dim, const Shape& index) {
  if (x.dim() != index.dim()) fail(op, fmt::format("x {} and index {} given, as many dimensions wanted", to_string(x.shape()), to_string(index)));
  Tensor v = x;
  for (int d = 0; d < x.dim(); ++d) {
    const auto n = index[static_cast<std::size_t>(d)];
    if (d == dim || n == x.size(d)) continue;
    if (n > x.size(d)) fail(op, fmt::format("index {} is larger than x {} in dim {}", to_string(index), to_string(x.shape()), d));
    v = v.narrow(d, 0, n);
  }
  return v;
}
}  // namespace

Tensor gather(const Tensor& x, int dim, const Tensor& index) {
  require_defined("gather", x, "the input");
  require_index("gather", index, "the index");
  if (x.dim() == 0) return gather(x.reshape({1}), 0, index.dim() == 0 ? index.reshape({1}) : index).reshape(index.shape());
  dim = wrap_dim("gather", dim, x.dim());
  const Operand a = dense(Operand(cut("gather", x, dim, index.shape())));
  const Tensor ids = dense(index);
  check_indices("gather", ids, x.size(dim));
  const Tensor y = make_tensor(index.shape(), x.dtype());
  const Around s = around(a.value.shape(), dim);
  kernels::gather(cpu_queue(), x.dtype(), ids.dtype(), data(a.value), data(ids), mutable_data(y), s.outer, s.n, index.size(dim), s.inner);
  return record(OpId::gather, y, {a}, {ids},
                [dim](Backward& g) { g.set(0, scatter_add(zeros(g.input(0).shape, {.dtype = g.dy().dtype()}), dim, g.saved(0), g.dy())); });
}

Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src) {
  require_defined("scatter_add", x, "the input");
  require_defined("scatter_add", src, "src");
  require_index("scatter_add", index, "the index");
  if (x.dim() == 0) fail("scatter_add", "a 0-dim tensor given");
  dim = wrap_dim("scatter_add", dim, x.dim());
  const Dtype dtype = compute_dtype(OpId::scatter_add, {&x, &src});
  const Tensor ids = dense(index);
  check_indices("scatter_add", ids, x.size(dim));
  const Tensor used = cut("scatter_add", src, -1, index.shape());
  const Operand a = operand(x, dtype), b = dense(operand(used, dtype));
  const bool whole = x.shape().without(dim) == index.shape().without(dim);
  const Tensor y = make_tensor(x.shape(), dtype);
  copy_elements(y, a.value);
  Tensor reached = y;
  {
    const GradMode off(false);
    reached = dense(cut("scatter_add", y, dim, index.shape()));
    const Around s = around(reached.shape(), dim);
    kernels::scatter_add(cpu_queue(), dtype, ids.dtype(), data(b.value), data(ids), mutable_data(reached), s.outer, s.n, index.size(dim), s.inner);
    if (!whole) copy_elements(cut("scatter_add", y, dim, index.shape()), reached);
  }
  return record(OpId::scatter_add, y, {a, b}, {ids}, [dim](Backward& g) {
    g.set(0, g.dy());
    if (g.wants(1)) g.set(1, gather(g.dy(), dim, g.saved(0)));
  });
}

}  // namespace mezzo
