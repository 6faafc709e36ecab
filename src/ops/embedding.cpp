// embedding.cpp - rows of a table, and rotary positions.
// embedding: gathers from the table as stored (f32) and rounds once to the region's dtype, so that the residual stream is 16-bit; the table's
// gradient is a sum in f32, in the order of the ids.
#include <algorithm>
#include <cmath>

#include "ops/common.h"

namespace mezzo {
namespace {

/// Sum of dy's rows (n, c) by id into a table (v, c); differentiable (its backward gathers).
Tensor scatter_rows(const Tensor& dy, const Tensor& ids, const autograd::TensorMeta& table) {
  const Dtype wide = table.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const Tensor sums = zeros(table.shape, {.dtype = wide}), rows = dense(dy);
  const auto v = table.shape[0], c = table.shape.numel() / std::max<std::int64_t>(v, 1);
  kernels::scatter_add_rows(cpu_queue(), rows.dtype(), wide, ids.dtype(), data(rows), data(ids), mutable_data(sums), ids.numel(), v, c);
  return record(OpId::gradient_of, sums, {dy}, {ids}, [](Backward& g) { g.set(0, embedding(g.saved(0), g.dy()).to(g.input(0).dtype)); });
}

}  // namespace

Tensor embedding(const Tensor& ids, const Tensor& table) {
  require_index("embedding", ids, "ids");
  require_floating("embedding", table, "the table");
  if (table.dim() != 2) fail("embedding", fmt::format("a table of shape {} given, (rows, width) wanted", to_string(table.shape())));
  const auto v = table.size(0), c = table.size(1);
  check_indices("embedding", ids, v);
  Shape shape = ids.shape();
  shape.push_back(c);
  const Tensor index = dense(ids), rows = dense(table);
  const Tensor y = make_tensor(shape, compute_dtype(OpId::embedding, table.dtype()));
  kernels::gather_rows(cpu_queue(), rows.dtype(), y.dtype(), index.dtype(), data(rows), data(index), mutable_data(y), index.numel(), c);
  return record(OpId::embedding, y, {table}, {index}, [](Backward& g) {
    const Tensor ids = g.saved(0);
    const auto s = g.sink(0);
    if (!s.buffer.defined()) return g.set(0, scatter_rows(g.dy(), ids, g.input(0)));
    const Dtype wide = s.buffer.dtype();
    if (is_16bit(wide)) return copy_elements(s.buffer, scatter_rows(g.dy(), ids, g.input(0)));  // the only contribution: summed in f32, rounded once
    if (!s.accumulate) kernels::fill(cpu_queue(), wide, 0, mutable_data(s.buffer), strided({&s.buffer}));
    const Tensor rows = dense(g.dy());
    kernels::scatter_add_rows(cpu_queue(), rows.dtype(), wide, ids.dtype(), data(rows), data(ids), mutable_data(s.buffer), ids.numel(),
                              s.buffer.size(0), s.buffer.size(1));
  });
}

// rope: storage T, compute f32, one rounding on store. Backward turns the other way.
namespace {
/// x (B, H, T, D), dense as such or as (B, T, H, D), in which order projections write it; the result is laid out alike.
Tensor turn(const Operand& in, const Tensor& inv_freq, const Tensor& positions, bool interleaved, double sign) {
  const Tensor& x = in.value;
  const auto b = x.size(0), h = x.size(1), t = x.size(2), d = x.size(3);
  const detail::Strides by_token{t * h * d, d, h * d, 1};
  const bool as_projected = h > 1 && t > 1 && std::equal(by_token.begin(), by_token.begin() + 4, x.impl()->strides.begin());
  const Tensor v = as_projected ? x : dense(x), made = make_tensor(as_projected ? Shape{b, t, h, d} : x.shape(), x.dtype());
  const Tensor y = as_projected ? make_view(made, x.shape(), by_token, 0) : made;
  kernels::rope(cpu_queue(), x.dtype(), data(v), mutable_data(y), static_cast<const float*>(data(inv_freq)),
                positions.defined() ? static_cast<const std::int64_t*>(data(positions)) : nullptr, as_projected ? b * t : b * h * t, t,
                as_projected ? h : 1, d, interleaved, sign);
  return record(OpId::rope, y, {in}, {}, [=](Backward& g) { g.set(0, turn(g.dy(), inv_freq, positions, interleaved, -sign)); });
}
}  // namespace

Tensor rope(const Tensor& x, const RopeOptions& o) {
  require_floating("rope", x);
  if (x.dim() != 4 || x.size(3) % 2 != 0) fail("rope", fmt::format("x has shape {}, (B, H, T, D) with an even D wanted", to_string(x.shape())));
  const auto half = x.size(3) / 2;
  Tensor inv_freq = o.inv_freq.defined() ? o.inv_freq.detach().to(Dtype::f32).contiguous() : make_tensor({half}, Dtype::f32);
  if (inv_freq.shape() != Shape{half}) fail("rope", fmt::format("inv_freq has shape {}, ({},) wanted", to_string(inv_freq.shape()), half));
  if (!o.inv_freq.defined())
    for (std::int64_t i = 0; i < half; ++i)
      static_cast<float*>(mutable_data(inv_freq))[i] =
          static_cast<float>(std::pow(o.base, -2.0 * static_cast<double>(i) / static_cast<double>(2 * half)));
  const Tensor positions = o.positions.defined() ? o.positions.to(Dtype::i64).contiguous() : Tensor();
  if (positions.defined() && positions.shape() != Shape{x.size(2)})
    fail("rope", fmt::format("positions have shape {}, ({},) wanted", to_string(positions.shape()), x.size(2)));
  return turn(operand(OpId::rope, x), inv_freq, positions, o.interleaved, 1);
}

}  // namespace mezzo
