// view.cpp - views: the same elements seen with other sizes and strides. Storage and dtype as given, nothing computed.
#include "ops/common.h"

namespace mezzo {
namespace {

/// Backward of narrow: dy in a tensor of zeros; differentiable (its backward is narrow).
Tensor pad_with_zeros(const Tensor& dy, const Shape& shape, int dim, std::int64_t start) {
  const GradMode off(false);
  Tensor dx = zeros(shape, {.dtype = dy.dtype()});
  copy_elements(dx.narrow(dim, start, dy.size(dim)), dy);
  return dx;
}
Tensor narrow_backward(const Tensor& dy, const Shape& shape, int dim, std::int64_t start) {
  const auto length = dy.size(dim);
  return record(OpId::gradient_of, pad_with_zeros(dy, shape, dim, start), {dy}, {},
                [=](Backward& g) { g.set(0, g.dy().narrow(dim, start, length)); });
}

}  // namespace

Tensor Tensor::reshape(Shape shape) const {
  require_defined("reshape", *this, "this");
  const Shape to = resolve_reshape(shape, numel(), this->shape());
  if (to == this->shape()) return *this;
  detail::Strides strides{};
  Tensor y;
  if (view_strides(*this, to, strides)) {
    y = make_view(*this, to, strides, impl_->offset);
  } else {
    y = make_tensor(to, dtype());
    const Tensor flat = make_view(y, this->shape(), contiguous_strides(this->shape()), 0);
    copy_elements(flat, *this);
  }
  return record(OpId::reshape, y, {*this}, {}, [](Backward& g) { g.set(0, g.dy().reshape(g.input(0).shape)); });
}

Tensor Tensor::permute(std::vector<int> dims) const {
  require_defined("permute", *this, "this");
  if (static_cast<int>(dims.size()) != dim()) fail("permute", fmt::format("{} dims given for a {}-dim tensor", dims.size(), dim()));
  Shape to;
  detail::Strides strides{};
  std::vector<int> inverse(dims.size(), -1);
  for (std::size_t d = 0; d < dims.size(); ++d) {
    const auto from = static_cast<std::size_t>(wrap_dim("permute", dims[d], dim()));
    if (inverse[from] >= 0) fail("permute", fmt::format("dim {} given twice", from));
    inverse[from] = static_cast<int>(d);
    to.push_back(shape()[from]);
    strides[d] = impl_->strides[from];
  }
  return record(OpId::permute, make_view(*this, to, strides, impl_->offset), {*this}, {},
                [inverse](Backward& g) { g.set(0, g.dy().permute(inverse)); });
}

Tensor Tensor::transpose(int a, int b) const {
  require_defined("transpose", *this, "this");
  const auto i = static_cast<std::size_t>(wrap_dim("transpose", a, dim())), j = static_cast<std::size_t>(wrap_dim("transpose", b, dim()));
  if (i == j) return *this;
  Shape to = shape();
  auto strides = impl_->strides;
  std::swap(to[i], to[j]);
  std::swap(strides[i], strides[j]);
  return record(OpId::transpose, make_view(*this, to, strides, impl_->offset), {*this}, {},
                [i, j](Backward& g) { g.set(0, g.dy().transpose(static_cast<int>(i), static_cast<int>(j))); });
}

Tensor Tensor::narrow(int d, std::int64_t start, std::int64_t length) const {
  require_defined("narrow", *this, "this");
  if (dim() == 0) fail("narrow", "a 0-dim tensor given");
  d = wrap_dim("narrow", d, dim());
  const auto i = static_cast<std::size_t>(d);
  if (start < 0 || length < 0 || start + length > shape()[i])
    fail("narrow", fmt::format("start {} and length {} given, a range inside [0, {}) wanted", start, length, shape()[i]));
  Shape to = shape();
  to[i] = length;
  const Shape from = shape();
  return record(OpId::narrow, make_view(*this, to, impl_->strides, impl_->offset + start * impl_->strides[i]), {*this}, {},
                [=](Backward& g) { g.set(0, narrow_backward(g.dy(), from, d, start)); });
}

Tensor Tensor::expand(Shape shape) const {
  require_defined("expand", *this, "this");
  const int lead = shape.dim() - dim();
  if (lead < 0) fail("expand", fmt::format("shape {} given for a tensor of shape {}: fewer dimensions", to_string(shape), to_string(this->shape())));
  for (std::size_t d = 0; d < shape.size(); ++d) {
    const std::int64_t from = static_cast<int>(d) < lead ? 1 : this->shape()[d - static_cast<std::size_t>(lead)];
    if (shape[d] == -1 && static_cast<int>(d) >= lead) shape[d] = from;
    if (shape[d] != from && (from != 1 || shape[d] < 0))
      fail("expand", fmt::format("shape {} given for a tensor of shape {}: only sizes of 1 can grow", to_string(shape), to_string(this->shape())));
  }
  return record(OpId::expand, make_view(*this, shape, broadcast_strides(*this, shape), impl_->offset), {*this}, {},
                [](Backward& g) { g.set(0, sum_to(g.dy(), g.input(0))); });
}

Tensor Tensor::unsqueeze(int d) const {
  require_defined("unsqueeze", *this, "this");
  d = wrap_dim("unsqueeze", d, dim() + 1);
  Shape to;
  detail::Strides strides{};
  for (int i = 0; i <= dim(); ++i) {
    const bool fresh = i == d;
    const auto from = static_cast<std::size_t>(i < d ? i : i - 1);
    strides[static_cast<std::size_t>(i)] = fresh ? 1 : impl_->strides[from];
    to.push_back(fresh ? 1 : shape()[from]);
  }
  return record(OpId::unsqueeze, make_view(*this, to, strides, impl_->offset), {*this}, {},
                [](Backward& g) { g.set(0, g.dy().reshape(g.input(0).shape)); });
}

Tensor Tensor::squeeze(int d) const {
  require_defined("squeeze", *this, "this");
  if (dim() == 0) return *this;
  d = wrap_dim("squeeze", d, dim());
  if (shape()[static_cast<std::size_t>(d)] != 1) return *this;
  detail::Strides strides{};
  for (int i = 0, to = 0; i < dim(); ++i)
    if (i != d) strides[static_cast<std::size_t>(to++)] = impl_->strides[static_cast<std::size_t>(i)];
  return record(OpId::squeeze, make_view(*this, shape().without(d), strides, impl_->offset), {*this}, {},
                [](Backward& g) { g.set(0, g.dy().reshape(g.input(0).shape)); });
}

Tensor Tensor::select(int d, std::int64_t index) const {
  require_defined("select", *this, "this");
  if (dim() == 0) fail("select", "a 0-dim tensor given");
  d = wrap_dim("select", d, dim());
  const auto n = size(d);
  if (index < -n || index >= n) fail("select", fmt::format("index {} given, [{}, {}] wanted", index, -n, n - 1));
  return narrow(d, index < 0 ? index + n : index, 1).squeeze(d);
}

}  // namespace mezzo
