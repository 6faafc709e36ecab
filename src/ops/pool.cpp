// pool.cpp - pooling over the last two dimensions. Storage T; max_pool2d: exact, saves where each maximum is; averages: sums in f32, one rounding.
#include <cstdint>

#include "ops/common.h"
#include "ops/per_dim.h"

namespace mezzo {
namespace {

/// x's planes, the windows over them, and the result's shape.
struct Pooling {
  kernels::Pool sizes;
  Shape in, out;
};

Pooling planes(const char* op, const Tensor& x) {
  require_floating(op, x, "x");
  if (x.dim() != 3 && x.dim() != 4) fail(op, fmt::format("x has shape {}, (N, C, H, W) or (C, H, W) wanted", to_string(x.shape())));
  Pooling p;
  p.in = x.shape();
  p.sizes.in = {x.size(-2), x.size(-1)};
  if (p.sizes.in[0] < 1 || p.sizes.in[1] < 1) fail(op, fmt::format("x has shape {}, H and W of 1 or more wanted", to_string(x.shape())));
  p.sizes.planes = x.numel() / (p.sizes.in[0] * p.sizes.in[1]);
  return p;
}

Pooling finish(Pooling p) {
  p.out = p.in;
  for (std::size_t d = 0; d < 2; ++d) p.out[p.out.size() - 2 + d] = p.sizes.out[d];
  return p;
}

Pooling windows(const char* op, const Tensor& x, const PoolOptions& o) {
  Pooling p = planes(op, x);
  if (o.kernel.values().empty()) fail(op, ".kernel is not given", "PoolOptions{.kernel = 2}, or {2, 3} for height and width");
  const auto kernel = per_dim<2>(op, "kernel", o.kernel, 1), stride = per_dim<2>(op, "stride", o.stride.values().empty() ? o.kernel : o.stride, 1),
             padding = per_dim<2>(op, "padding", o.padding, 0);
  auto& s = p.sizes;
  for (std::size_t d = 0; d < 2; ++d) {
    if (padding[d] > kernel[d] / 2)
      fail(op, fmt::format(".padding = {} given for a kernel of {}, at most half of it wanted", padding[d], kernel[d]),
           "a window must not lie in the padding whole");
    const auto room = s.in[d] + 2 * padding[d] - kernel[d];
    if (room < 0)
      fail(op,
           fmt::format("the kernel covers {} elements of {}, but the padded input has {}", kernel[d], d == 0 ? "H" : "W", s.in[d] + 2 * padding[d]),
           "a smaller kernel, more padding, or a larger input");
    s.out[d] = (room + (o.ceil_mode ? stride[d] - 1 : 0)) / stride[d] + 1;
    if ((s.out[d] - 1) * stride[d] >= s.in[d] + padding[d]) --s.out[d];  // it would begin in the padding at the end
  }
  s.kernel = kernel, s.stride = stride, s.padding = padding;
  s.count_include_pad = o.count_include_pad;
  return finish(p);
}

/// The mean of each window, or the adjoint of that: both are linear, and each is the other's backward.
Tensor averaged(OpId op, const Pooling& p, const Tensor& x, bool adjoint) {
  const Operand a = dense(adjoint ? Operand(x) : operand(op, x));
  const Tensor y = make_tensor(adjoint ? p.in : p.out, a.value.dtype());
  (adjoint ? kernels::avg_pool_backward : kernels::avg_pool)(cpu_queue(), y.dtype(), p.sizes, data(a.value), mutable_data(y));
  return record(op, y, {a}, {}, [=](Backward& g) { g.set(0, averaged(op, p, g.dy(), !adjoint)); });
}

}  // namespace

Tensor max_pool2d(const Tensor& x, const PoolOptions& o) {
  const Pooling p = windows("max_pool2d", x, o);
  if (p.sizes.in[0] * p.sizes.in[1] > INT32_MAX)
    fail("max_pool2d", fmt::format("x has shape {}, planes of fewer than 2^31 elements wanted", to_string(x.shape())));
  const Operand a = dense(operand(OpId::max_pool2d, x));
  const Tensor y = make_tensor(p.out, a.value.dtype()), index = should_record({a}) ? make_tensor(p.out, Dtype::i32) : Tensor();
  kernels::max_pool(cpu_queue(), y.dtype(), p.sizes, data(a.value), mutable_data(y),
                    index.defined() ? static_cast<std::int32_t*>(mutable_data(index)) : nullptr);
  return record(OpId::max_pool2d, y, {a}, {index}, [p](Backward& g) {
    const Tensor index = g.saved(0);
    if (g.create_graph()) {
      const auto& s = p.sizes;
      const auto in = s.in[0] * s.in[1], out = s.out[0] * s.out[1];
      const Tensor nothing = zeros({s.planes, in}, {.dtype = g.dy().dtype()});
      return g.set(0, scatter_add(nothing, 1, index.reshape({s.planes, out}), g.dy().reshape({s.planes, out})).reshape(p.in));
    }
    const Tensor dy = dense(g.dy()), dx = make_tensor(p.in, dy.dtype());
    kernels::max_pool_backward(cpu_queue(), dy.dtype(), p.sizes, static_cast<const std::int32_t*>(data(index)), data(dy), mutable_data(dx));
    g.set(0, dx);
  });
}

Tensor avg_pool2d(const Tensor& x, const PoolOptions& o) { return averaged(OpId::avg_pool2d, windows("avg_pool2d", x, o), x, false); }

Tensor adaptive_avg_pool2d(const Tensor& x, const Shape& out) {
  Pooling p = planes("adaptive_avg_pool2d", x);
  if (out.size() != 2 || out[0] < 1 || out[1] < 1)
    fail("adaptive_avg_pool2d", fmt::format("out = {} given, two sizes of 1 or more wanted", to_string(out)));
  p.sizes.adaptive = true;
  p.sizes.out = {out[0], out[1]};
  return averaged(OpId::adaptive_avg_pool2d, finish(p), x, false);
}

}  // namespace mezzo
