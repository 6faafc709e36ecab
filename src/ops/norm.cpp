// norm.cpp - layer_norm and rms_norm over the last dimension. Storage T, statistics and arithmetic f32 (f64 for f64), one rounding on store;
// weight gradients are sums in f32. Saves x, w and the rows' statistics.
#include <array>

#include "ops/common.h"

namespace mezzo {
namespace {

Tensor plain(bool rms, const std::vector<Tensor>& v, double eps) {
  const ReduceOptions last{.dims = {-1}, .keepdim = true};
  const Tensor wide = is_16bit(v[0].dtype()) ? v[0].to(Dtype::f32) : v[0];
  const Tensor x = rms ? wide : sub(wide, mean(wide, last));
  Tensor y = mul(x, rsqrt(add(mean(mul(x, x), last), eps)));
  if (v[1].defined()) y = mul(y, v[1]);
  if (v[2].defined()) y = add(y, v[2]);
  return y.to(v[0].dtype());
}

/// A buffer for a weight's gradient: the leaf's own where it may be written, else one that set() hands over.
struct WeightGradient {
  Tensor buffer;
  bool own = false, accumulate = false;
};
WeightGradient weight_gradient(Backward& g, int input, Dtype wide) {
  if (!g.wants(input)) return {};
  const auto s = g.input(input).dtype == wide ? g.sink(input) : Backward::Sink{};
  if (s.buffer.defined()) return {s.buffer, true, s.accumulate};
  return {make_tensor(g.input(input).shape, wide), false, false};
}

Tensor normalize(OpId op, const Tensor& x, const Tensor& w, const Tensor& b, double eps) {
  const bool rms = op == OpId::rms_norm;
  require_floating(name(op), x);
  if (x.dim() == 0) fail(name(op), "a 0-dim tensor given");
  const auto c = x.size(-1);
  for (const Tensor* t : {&w, &b})
    if (t->defined() && t->shape() != Shape{c})
      fail(name(op), fmt::format("{} has shape {}, ({},) wanted: the last dimension of x {}", t == &w ? "w" : "b", to_string(t->shape()), c,
                                 to_string(x.shape())));
  const Operand a = dense(operand(op, x));
  const Dtype dtype = a.value.dtype(), wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  // Weights of the kernel share one dtype: x's, or f32 (f64 for f64).
  const bool as_x = (!w.defined() || w.dtype() == dtype) && (!b.defined() || b.dtype() == dtype);
  const Operand wo = dense(operand(w, as_x ? dtype : wide)), bo = dense(operand(b, as_x ? dtype : wide));
  const auto n = c ? x.numel() / c : 0;
  const bool grad = should_record({a, wo, bo});
  const Tensor y = make_tensor(x.shape(), dtype), rstd = grad ? make_tensor({n}, wide) : Tensor(),
               mu = grad && !rms ? make_tensor({n}, wide) : Tensor();
  const auto pointer = [](const Tensor& t) { return t.defined() ? mutable_data(t) : nullptr; };
  const Dtype weights = wo.value.defined() ? wo.value.dtype() : bo.value.defined() ? bo.value.dtype() : wide;
  const PartScope timed(Part::norm);
  kernels::layer_norm(cpu_queue(), rms, dtype, weights, data(a.value), pointer(wo.value), pointer(bo.value), mutable_data(y), pointer(mu),
                      pointer(rstd), n, c, eps);

  return record(op, y, {a, wo, bo}, {a.value, wo.value, bo.value, mu, rstd}, [=](Backward& g) {
    const Tensor x = g.saved(0), w = g.saved(1), b = g.saved(2), mu = g.saved(3), rstd = g.saved(4);
    if (g.create_graph()) return g.through({x, w, b}, [=](const std::vector<Tensor>& v) { return plain(rms, v, eps); });
    const PartScope timed(Part::norm);
    const Tensor dy = dense(g.dy());
    Tensor existing;
    if (g.wants(0) && g.input(0).dtype == dtype) existing = g.take_existing(0);
    const Tensor dx = existing.defined() ? existing : make_tensor(x.shape(), dtype);
    WeightGradient dw = weight_gradient(g, 1, wide), db = weight_gradient(g, 2, wide);
    const bool accumulate = dw.accumulate || db.accumulate;
    if (accumulate)
      for (auto* t : {&dw, &db})  // one flag for both: a fresh buffer starts from zero
        if (t->buffer.defined() && !t->accumulate) kernels::fill(cpu_queue(), wide, 0, mutable_data(t->buffer), strided({&t->buffer}));
    kernels::layer_norm_backward(cpu_queue(), rms, dtype, weights, data(x), pointer(w), pointer(mu), data(rstd), data(dy), pointer(existing),
                                 mutable_data(dx), pointer(dw.buffer), pointer(db.buffer), accumulate, n, c);
    if (g.wants(0)) g.set(0, dx);
    if (dw.buffer.defined() && !dw.own) g.set(1, dw.buffer);
    if (db.buffer.defined() && !db.own) g.set(2, db.buffer);
  });
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, NormOptions o) { return normalize(OpId::layer_norm, x, w, b, o.eps); }
Tensor rms_norm(const Tensor& x, const Tensor& w, NormOptions o) { return normalize(OpId::rms_norm, x, w, {}, o.eps); }

}  // namespace mezzo
