// softmax.cpp - softmax, log_softmax, logsumexp along a dimension. Storage T, arithmetic f32, one rounding on store; log forms are f32 under
// autocast.
#include "ops/common.h"

namespace mezzo {
namespace {

Tensor rows(OpId op, const Tensor& x) {  // along the last dimension
  const bool log = op == OpId::log_softmax;
  const Operand a = dense(Operand(x));
  const Dtype from = x.dtype(), to = compute_dtype(op, from);
  const Tensor y = make_tensor(x.shape(), to);
  const auto c = x.size(-1);
  kernels::softmax(cpu_queue(), log, from, to, data(a.value), mutable_data(y), c ? x.numel() / c : 0, c);
  return record(op, y, {a}, {y}, [log](Backward& g) {
    const Tensor y = g.saved(0);
    if (g.create_graph()) {
      const Tensor& dy = g.dy();
      if (log) return g.set(0, sub(dy, mul(exp(y), sum(dy, {.dims = {-1}, .keepdim = true}))));
      return g.set(0, mul(y, sub(dy, sum(mul(dy, y), {.dims = {-1}, .keepdim = true}))));
    }
    const Tensor dy = dense(g.dy()), dx = make_tensor(y.shape(), g.input(0).dtype);
    const auto c = y.size(-1);
    kernels::softmax_backward(cpu_queue(), log, y.dtype(), dx.dtype(), data(y), data(dy), mutable_data(dx), c ? y.numel() / c : 0, c);
    g.set(0, dx);
  });
}

Tensor along(OpId op, const Tensor& x, int dim) {
  require_floating(name(op), x);
  dim = wrap_dim(name(op), dim, x.dim());
  if (x.dim() == 0) return rows(op, x.reshape({1})).reshape({});
  if (dim == x.dim() - 1) return rows(op, x);
  return rows(op, x.transpose(dim, -1)).transpose(dim, -1).contiguous();
}

}  // namespace

Tensor softmax(const Tensor& x, int dim) { return along(OpId::softmax, x, dim); }
Tensor log_softmax(const Tensor& x, int dim) { return along(OpId::log_softmax, x, dim); }

// logsumexp: composed in f32; a maximum of +-Inf is not subtracted, so that Inf stays Inf and is not NaN.
Tensor logsumexp(const Tensor& x, int dim) {
  require_floating("logsumexp", x);
  const Dtype to = compute_dtype(OpId::logsumexp, x.dtype());
  if (x.dim() == 0) return x.to(to);
  dim = wrap_dim("logsumexp", dim, x.dim());
  const Tensor wide = is_16bit(x.dtype()) ? x.to(Dtype::f32) : x;
  Tensor largest = amax(wide.detach(), {.dims = {dim}, .keepdim = true});
  largest = masked_fill(largest, eq(abs(largest), std::numeric_limits<double>::infinity()), 0);
  return add(log(sum(exp(sub(wide, largest)), {.dims = {dim}})), largest.squeeze(dim)).to(to);
}

}  // namespace mezzo
