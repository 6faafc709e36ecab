// layout.cpp - broadcasting, views and the collapsed index space of strided kernels.
#include "tensor/layout.h"

#include <algorithm>
#include <array>

#include "core/fail.h"

namespace mezzo {

Shape broadcast_shapes(const char* op, const Shape& a, const Shape& b) {
  const int n = std::max(a.dim(), b.dim());
  std::array<std::int64_t, Shape::kMax> out{};
  for (int d = 1; d <= n; ++d) {
    const std::int64_t x = d <= a.dim() ? a[static_cast<std::size_t>(a.dim() - d)] : 1,
                       y = d <= b.dim() ? b[static_cast<std::size_t>(b.dim() - d)] : 1;
    if (x != y && x != 1 && y != 1)
      fail(op, fmt::format("shapes {} and {} given: dimension {} from the right is {} and {}", to_string(a), to_string(b), d, x, y),
           "sizes must be equal or 1");
    out[static_cast<std::size_t>(n - d)] = x == 1 ? y : x;
  }
  return Shape(std::span<const std::int64_t>(out.data(), static_cast<std::size_t>(n)));
}

detail::Strides broadcast_strides(const Tensor& t, const Shape& shape) {
  const auto& impl = *t.impl();
  detail::Strides s{};
  const int skip = shape.dim() - impl.shape.dim();
  for (int d = skip; d < shape.dim(); ++d) {
    const auto from = static_cast<std::size_t>(d - skip), to = static_cast<std::size_t>(d);
    s[to] = impl.shape[from] == 1 ? 0 : impl.strides[from];
  }
  return s;
}

kernels::Strided strided(std::initializer_list<const Tensor*> operands) {
  const Shape& shape = (*operands.begin())->impl()->shape;
  kernels::Strided out;
  out.operands = static_cast<int>(operands.size());
  std::array<detail::Strides, 4> strides;
  int n = 0;
  for (const Tensor* t : operands) strides[static_cast<std::size_t>(n++)] = broadcast_strides(*t, shape);
  for (std::size_t d = 0; d < shape.size(); ++d) {
    if (shape[d] == 1) continue;
    // Merge into the dimension before it when every operand steps through both as through one.
    bool merge = out.dims > 0;
    const auto last = static_cast<std::size_t>(out.dims - 1);
    for (std::size_t k = 0; merge && k < static_cast<std::size_t>(n); ++k) merge = out.stride[k][last] == strides[k][d] * shape[d];
    const std::size_t to = merge ? last : static_cast<std::size_t>(out.dims++);
    out.size[to] = merge ? out.size[to] * shape[d] : shape[d];
    for (std::size_t k = 0; k < static_cast<std::size_t>(n); ++k) out.stride[k][to] = strides[k][d];
  }
  return out;
}

bool view_strides(const Tensor& t, const Shape& shape, detail::Strides& out) {
  const auto& impl = *t.impl();
  if (impl.contiguous) {
    out = contiguous_strides(shape);
    return true;
  }
  if (shape.numel() == 0) return false;
  // Walk both shapes from the inside; each run of old dimensions that steps as one must be covered by whole new dimensions.
  int to = shape.dim() - 1;
  std::int64_t run = 1, covered = 1;
  std::int64_t base = 0;
  bool open = false;
  for (int d = impl.shape.dim() - 1; d >= 0; --d) {
    const auto i = static_cast<std::size_t>(d);
    if (impl.shape[i] == 1) continue;
    if (!open) {
      base = impl.strides[i];
      run = 1;
      covered = 1;
      open = true;
    }
    run *= impl.shape[i];
    int before = d - 1;
    while (before >= 0 && impl.shape[static_cast<std::size_t>(before)] == 1) --before;
    const bool continues = before >= 0 && impl.strides[static_cast<std::size_t>(before)] == base * run;
    if (continues) continue;
    while (to >= 0 && (covered < run || shape[static_cast<std::size_t>(to)] == 1)) {
      out[static_cast<std::size_t>(to)] = base * covered;
      covered *= shape[static_cast<std::size_t>(to)];
      --to;
    }
    if (covered != run) return false;
    open = false;
  }
  for (; to >= 0; --to) out[static_cast<std::size_t>(to)] = 1;  // what is left has size 1
  return true;
}

Shape resolve_reshape(const Shape& shape, std::int64_t numel, const Shape& from) {
  Shape out = shape;
  std::int64_t known = 1;
  int unknown = -1;
  for (int d = 0; d < shape.dim(); ++d) {
    const auto s = shape[static_cast<std::size_t>(d)];
    if (s == -1 && unknown >= 0) fail("reshape", fmt::format("shape {} given, at most one -1 wanted", to_string(shape)));
    if (s == -1) unknown = d;
    else known *= s;
  }
  if (unknown >= 0 && known != 0 && numel % known == 0) out[static_cast<std::size_t>(unknown)] = numel / known;
  if (unknown >= 0 ? known == 0 || numel % known != 0 : known != numel)
    fail("reshape", fmt::format("shape {} given for a tensor of shape {}, {} elements wanted", to_string(shape), to_string(from), numel));
  return out;
}

void copy_elements(const Tensor& dst, const Tensor& src) {
  auto& q = kernels::cpu_queue();
  const auto& d = *dst.impl();
  const auto& s = *src.impl();
  if (d.contiguous && s.contiguous && d.shape.numel() == s.shape.numel())
    kernels::convert(q, s.dtype, d.dtype, s.bytes(), d.bytes(), d.shape.numel());
  else kernels::copy(q, s.dtype, d.dtype, s.bytes(), d.bytes(), strided({&dst, &src}));
}

}  // namespace mezzo
