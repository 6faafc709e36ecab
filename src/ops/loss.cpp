// loss.cpp - losses. f32 under autocast (f64 for f64), whatever the inputs' dtype.
#include <cmath>

#include "ops/common.h"
#include "ops/targets.h"

namespace mezzo {

std::int64_t check_targets(const char* op, const Tensor& target, std::int64_t v, std::int64_t ignore_index) {
  std::int64_t carrying = 0;
  const auto scan = [&](const auto* p) {
    for (std::int64_t i = 0, n = target.numel(); i < n; ++i) {
      const auto id = static_cast<std::int64_t>(p[i]);
      if (id == ignore_index) continue;
      if (id < 0 || id >= v) fail(op, fmt::format("target {} at position {} given, 0 to {} (or ignore_index {}) wanted", id, i, v - 1, ignore_index));
      ++carrying;
    }
  };
  if (target.dtype() == Dtype::i64) scan(static_cast<const std::int64_t*>(data(target)));
  else scan(static_cast<const std::int32_t*>(data(target)));
  return carrying;
}

// cross_entropy: logits T, log-sum-exp and loss f32. Saves logits and lse; the gradient is written in the logits' dtype.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, LossOptions o) {
  require_floating("cross_entropy", logits, "the logits");
  require_index("cross_entropy", target, "the target");
  if (logits.dim() == 0 || logits.shape().without(logits.dim() - 1) != target.shape())
    fail("cross_entropy",
         fmt::format("logits {} and target {} given, (..., V) and (...) wanted", to_string(logits.shape()), to_string(target.shape())));
  const auto v = logits.size(-1), n = target.numel();
  const Tensor ids = dense(target);
  const auto carrying = check_targets("cross_entropy", ids, v, o.ignore_index);
  compute_dtype(OpId::cross_entropy, logits.dtype());  // a policy may ban it
  const Operand x = dense(Operand(logits));            // read as stored: the kernel computes in f32
  const Dtype wide = logits.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const Tensor losses = make_tensor(target.shape(), wide), lse = make_tensor({n}, wide);
  const PartScope timed(Part::head_loss);
  kernels::cross_entropy(cpu_queue(), logits.dtype(), ids.dtype(), data(x.value), data(ids), mutable_data(losses), mutable_data(lse), n, v,
                         o.ignore_index);
  const Tensor each = record(OpId::cross_entropy, losses, {x}, {x.value, ids, lse}, [o](Backward& g) {
    const Tensor x = g.saved(0), ids = g.saved(1), lse = g.saved(2);
    if (g.create_graph()) {
      const LossOptions none{.reduction = Reduction::none, .ignore_index = o.ignore_index};
      return g.through({x}, [=](const std::vector<Tensor>& v) {
        return nll_loss(log_softmax(is_16bit(v[0].dtype()) ? v[0].to(Dtype::f32) : v[0], -1), ids, none);
      });
    }
    const PartScope timed(Part::head_loss);
    const Tensor dy = dense(g.dy()), dx = make_tensor(x.shape(), x.dtype());
    kernels::cross_entropy_backward(cpu_queue(), x.dtype(), dx.dtype(), ids.dtype(), data(x), data(ids), data(lse), data(dy), 1, mutable_data(dx),
                                    ids.numel(), x.size(-1), o.ignore_index);
    g.set(0, dx);
  });
  return reduce_loss(each, o.reduction, static_cast<double>(carrying));
}

// nll_loss: picks -log p[target]; f32.
Tensor nll_loss(const Tensor& log_p, const Tensor& target, LossOptions o) {
  require_floating("nll_loss", log_p);
  require_index("nll_loss", target, "the target");
  if (log_p.dim() == 0 || log_p.shape().without(log_p.dim() - 1) != target.shape())
    fail("nll_loss",
         fmt::format("log-probabilities {} and target {} given, (..., V) and (...) wanted", to_string(log_p.shape()), to_string(target.shape())));
  const Tensor ids = dense(target);
  const auto carrying = check_targets("nll_loss", ids, log_p.size(-1), o.ignore_index);
  const Tensor ignored = eq(ids, static_cast<double>(o.ignore_index));
  const Tensor x = log_p.to(compute_dtype(OpId::nll_loss, log_p.dtype()));
  const Tensor picked = gather(x, -1, masked_fill(ids, ignored, 0).unsqueeze(-1)).squeeze(-1);
  return reduce_loss(masked_fill(neg(picked), ignored, 0), o.reduction, static_cast<double>(carrying));
}

namespace {
std::array<Tensor, 2> two(OpId op, const Tensor& x, const Tensor& y) {
  require_floating(name(op), x);
  require_floating(name(op), y, "the target");
  if (x.shape() != y.shape()) fail(name(op), fmt::format("shapes {} and {} given, equal ones wanted", to_string(x.shape()), to_string(y.shape())));
  const Dtype dtype = promote(compute_dtype(op, x.dtype()), compute_dtype(op, y.dtype()));
  return {x.to(dtype), y.to(dtype)};
}
}  // namespace

Tensor mse_loss(const Tensor& x, const Tensor& y, LossOptions o) {
  const auto p = two(OpId::mse_loss, x, y);
  const Tensor d = sub(p[0], p[1]);
  return reduce_loss(mul(d, d), o.reduction, static_cast<double>(x.numel()));
}

// binary_cross_entropy: logarithms are held at -100, as in torch, so that a certain and right answer costs 0 and a wrong one is finite.
Tensor binary_cross_entropy(const Tensor& probability, const Tensor& y, LossOptions o) {
  const auto p = two(OpId::binary_cross_entropy, probability, y);
  const Tensor yes = mul(p[1], clamp(log(p[0]), {.min = -100})), no = mul(sub(1.0, p[1]), clamp(log(sub(1.0, p[0])), {.min = -100}));
  return reduce_loss(neg(add(yes, no)), o.reduction, static_cast<double>(y.numel()));
}

// with_logits: softplus(x) - x y, finite for every finite x.
Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& y, LossOptions o) {
  const auto p = two(OpId::binary_cross_entropy_with_logits, x, y);
  return reduce_loss(sub(softplus(p[0]), mul(p[0], p[1])), o.reduction, static_cast<double>(x.numel()));
}

}  // namespace mezzo
