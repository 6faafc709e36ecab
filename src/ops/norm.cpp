// norm.cpp - layer_norm and rms_norm over the last dimension, batch_norm and group_norm over channels. Storage T, statistics and arithmetic f32
// (f64 for f64), one rounding on store; weight gradients are sums in f32. Saves x, w and the statistics;
// those that would save the output of layer_norm or rms_norm make it again.

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

/// Those of w and b, inputs 1 and 2: one flag says whether the kernel adds to both.
struct WeightGradients {
  WeightGradient w, b;
  bool accumulate;

  WeightGradients(Backward& g, Dtype wide)
      : w(weight_gradient(g, 1, wide)), b(weight_gradient(g, 2, wide)), accumulate(w.accumulate || b.accumulate) {
    if (!accumulate) return;
    for (auto* t : {&w, &b})  // a fresh buffer starts from zero
      if (t->buffer.defined() && !t->accumulate) kernels::fill(cpu_queue(), wide, 0, mutable_data(t->buffer), strided({&t->buffer}));
  }
  void give(Backward& g) const {
    if (w.buffer.defined() && !w.own) g.set(1, w.buffer);
    if (b.buffer.defined() && !b.own) g.set(2, b.buffer);
  }
};

void* pointer(const Tensor& t) { return t.defined() ? mutable_data(t) : nullptr; }

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
  const Tensor rstd = grad ? make_tensor({n}, wide) : Tensor(), mu = grad && !rms ? make_tensor({n}, wide) : Tensor();
  const Dtype weights = wo.value.defined() ? wo.value.dtype() : bo.value.defined() ? bo.value.dtype() : wide;
  const auto run = [=](const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& mu, const Tensor& rstd) {
    Tensor y = make_tensor(x.shape(), dtype);
    const PartScope timed(Part::norm);
    kernels::layer_norm(cpu_queue(), rms, dtype, weights, data(x), pointer(w), pointer(b), mutable_data(y), pointer(mu), pointer(rstd), n, c, eps);
    return y;
  };
  Tensor y = record(op, run(a.value, wo.value, bo.value, mu, rstd), {a, wo, bo}, {a.value, wo.value, bo.value, mu, rstd}, [=](Backward& g) {
    const Tensor x = g.saved(0), w = g.saved(1), b = g.saved(2), mu = g.saved(3), rstd = g.saved(4);
    if (g.create_graph()) return g.through({x, w, b}, [=](const std::vector<Tensor>& v) { return plain(rms, v, eps); });
    const PartScope timed(Part::norm);
    const Tensor dy = dense(g.dy());
    Tensor existing;
    if (g.wants(0) && g.input(0).dtype == dtype) existing = g.take_existing(0);
    const Tensor dx = existing.defined() ? existing : make_tensor(x.shape(), dtype);
    const WeightGradients dw(g, wide);
    kernels::layer_norm_backward(cpu_queue(), rms, dtype, weights, data(x), pointer(w), pointer(mu), data(rstd), data(dy), pointer(existing),
                                 mutable_data(dx), pointer(dw.w.buffer), pointer(dw.b.buffer), dw.accumulate, n, c);
    if (g.wants(0)) g.set(0, dx);
    dw.give(g);
  });
  if (grad) let_remake(y, {a.value, wo.value, bo.value}, [run](const std::vector<Tensor>& v) { return run(v[0], v[1], v[2], {}, {}); });
  return y;
}

// ---- over channels -----------------------------------------------------------------------------------

/// x (N, C, ...) as (N, C, L), or as one dimension more where a group's channels are apart.
Tensor plain_channels(const kernels::ChannelNorm& s, const std::vector<Tensor>& v, const Tensor& mean, const Tensor& rstd, double eps) {
  const Dtype wide = is_16bit(v[0].dtype()) ? Dtype::f32 : v[0].dtype();
  const auto groups = s.groups ? s.groups : s.c;
  const Tensor x = v[0].to(wide).reshape({s.n, groups, s.c / groups, s.l});
  const auto spread = [&](const Tensor& t, Shape shape) { return t.to(wide).reshape(std::move(shape)); };
  Tensor y;
  if (mean.defined()) {  // fixed, for each channel
    y = mul(sub(x, spread(mean, {1, groups, 1, 1})), spread(rstd, {1, groups, 1, 1}));
  } else {
    const ReduceOptions over{.dims = s.groups ? std::vector<int>{2, 3} : std::vector<int>{0, 2, 3}, .keepdim = true};
    const Tensor centered = sub(x, mezzo::mean(x, over));
    y = mul(centered, rsqrt(add(mezzo::mean(mul(centered, centered), over), eps)));
  }
  const Shape channels{1, groups, s.c / groups, 1};
  if (v[1].defined()) y = mul(y, spread(v[1], channels));
  if (v[2].defined()) y = add(y, spread(v[2], channels));
  return y.reshape(v[0].shape()).to(v[0].dtype());
}

Tensor rstd_of(const Tensor& var, double eps) {
  Tensor r = make_tensor(var.shape(), var.dtype());
  kernels::binary_scalar(cpu_queue(), kernels::Binary::add, r.dtype(), data(var), eps, false, mutable_data(r), r.numel());
  kernels::unary(cpu_queue(), kernels::Unary::rsqrt, r.dtype(), data(r), mutable_data(r), r.numel());
  return r;
}

/// Checks, and the sizes: x (N, C, ...), weights (C).
kernels::ChannelNorm channel_sizes(const char* op, const Tensor& x, const Tensor& w, const Tensor& b) {
  require_floating(op, x);
  if (x.dim() < 2) fail(op, fmt::format("x has shape {}, (N, C) or (N, C, ...) wanted", to_string(x.shape())));
  kernels::ChannelNorm s;
  s.n = x.size(0);
  s.c = x.size(1);
  if (x.numel() > 0) s.l = x.numel() / (s.n * s.c);
  for (const Tensor* t : {&w, &b}) {
    if (!t->defined()) continue;
    require_floating(op, *t, t == &w ? "w" : "b");
    if (t->shape() != Shape{s.c})
      fail(op,
           fmt::format("{} has shape {}, ({},) wanted: the channels of x {}", t == &w ? "w" : "b", to_string(t->shape()), s.c, to_string(x.shape())));
  }
  return s;
}

/// fixed_mean, fixed_rstd: undefined, or what to use instead of x's own statistics. stats(mean, var) sees those.
template <class Stats> Tensor normalize_channels(OpId op, kernels::ChannelNorm s, const Tensor& x, const Tensor& w, const Tensor& b, double eps,
                                                 const Tensor& fixed_mean, const Tensor& fixed_rstd, const Stats& stats) {
  const Operand a = dense(operand(op, x));
  s.dtype = a.value.dtype();
  const Dtype wide = s.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const Operand wo = dense(operand(w, wide)), bo = dense(operand(b, wide));
  const bool fixed = fixed_mean.defined();
  const PartScope timed(Part::norm);
  Tensor mean = fixed_mean, rstd = fixed_rstd;
  const Tensor y = make_tensor(x.shape(), s.dtype);
  if (!fixed) {
    mean = make_tensor({s.sets()}, wide);
    const Tensor var = make_tensor({s.sets()}, wide);
    if (x.numel()) kernels::channel_stats(cpu_queue(), s, data(a.value), mutable_data(mean), mutable_data(var));
    if (x.numel()) stats(mean, var);
    rstd = rstd_of(var, eps);
  }
  if (x.numel()) kernels::channel_norm(cpu_queue(), s, data(a.value), data(mean), data(rstd), pointer(wo.value), pointer(bo.value), mutable_data(y));
  return record(op, y, {a, wo, bo}, {a.value, wo.value, bo.value, mean, rstd}, [=](Backward& g) {
    const Tensor x = g.saved(0), w = g.saved(1), b = g.saved(2), mean = g.saved(3), rstd = g.saved(4);
    if (g.create_graph()) {
      const Tensor m = fixed ? mean : Tensor(), r = fixed ? rstd : Tensor();
      return g.through({x, w, b}, [=](const std::vector<Tensor>& v) { return plain_channels(s, v, m, r, eps); });
    }
    const PartScope timed(Part::norm);
    const Tensor dy = dense(g.dy()), dx = g.wants(0) ? make_tensor(x.shape(), s.dtype) : Tensor();
    const WeightGradients dw(g, wide);
    kernels::channel_norm_backward(cpu_queue(), s, fixed, data(x), data(mean), data(rstd), pointer(w), data(dy), pointer(dx), pointer(dw.w.buffer),
                                   pointer(dw.b.buffer), dw.accumulate);
    if (dx.defined()) g.set(0, dx);
    dw.give(g);
  });
}

/// running = (1 - momentum) running + momentum now, in its own dtype.
void move_running(const Tensor& running, const Tensor& now, double momentum, double factor = 1) {
  if (!running.defined()) return;
  const GradMode off(false);
  const AutocastMode no_autocast(false);
  copy_(running, add(mul(running, 1 - momentum), mul(now.to(running.dtype()), momentum * factor)));
}

}  // namespace

Tensor layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, NormOptions o) { return normalize(OpId::layer_norm, x, w, b, o.eps); }
Tensor rms_norm(const Tensor& x, const Tensor& w, NormOptions o) { return normalize(OpId::rms_norm, x, w, {}, o.eps); }

Tensor group_norm(const Tensor& x, int groups, const Tensor& w, const Tensor& b, NormOptions o) {
  auto s = channel_sizes("group_norm", x, w, b);
  if (groups < 1 || s.c % groups != 0)
    fail("group_norm", fmt::format("groups = {} given for {} channels, a divisor of them wanted", groups, s.c), "x is (N, C, ...)");
  s.groups = groups;
  return normalize_channels(OpId::group_norm, s, x, w, b, o.eps, {}, {}, [](const Tensor&, const Tensor&) {});
}

Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& w, const Tensor& b, BatchNormOptions o) {
  const char* op = "batch_norm";
  const auto s = channel_sizes(op, x, w, b);
  for (const Tensor* t : {&running_mean, &running_var}) {
    const char* what = t == &running_mean ? "running_mean" : "running_var";
    if (!t->defined()) {
      if (!o.training) fail(op, fmt::format("{} is undefined, and .training is off", what), "without running statistics only .training = true works");
      continue;
    }
    if (t->dtype() != Dtype::f32 && t->dtype() != Dtype::f64)
      fail(op, fmt::format("{} is {}, f32 wanted", what, name(t->dtype())), "16 bits would lose most of its small updates: keep it in f32");
    if (t->shape() != Shape{s.c})
      fail(op, fmt::format("{} has shape {}, ({},) wanted: the channels of x {}", what, to_string(t->shape()), s.c, to_string(x.shape())));
  }
  if (!o.training) {
    const Dtype wide = x.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
    const auto own = [wide](const Tensor& t) {  // a copy: the next batch in training changes them
      Tensor c = make_tensor(t.shape(), wide);
      copy_elements(c, t);
      return c;
    };
    return normalize_channels(OpId::batch_norm, s, x, w, b, o.eps, own(running_mean), rstd_of(own(running_var), o.eps),
                              [](const Tensor&, const Tensor&) {});
  }
  const auto count = static_cast<double>(s.set_size());
  if (x.numel() && count < 2)
    fail(op, fmt::format("x has shape {}: one value for each channel, two or more wanted in training", to_string(x.shape())),
         "a larger batch, or eval() for single examples");
  return normalize_channels(OpId::batch_norm, s, x, w, b, o.eps, {}, {}, [&](const Tensor& mean, const Tensor& var) {
    move_running(running_mean, mean, o.momentum);
    move_running(running_var, var, o.momentum, count / (count - 1));  // the unbiased one
  });
}

}  // namespace mezzo
