// loss.cpp - losses. f32 under autocast (f64 for f64), whatever the inputs' dtype.
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

void check_loss_options(const char* op, const LossOptions& o) {
  if (o.reduction == Reduction::batchmean)
    fail(op, "Reduction::batchmean given, which is kl_div's", "use Reduction::mean, or Reduction::sum and divide");
  if (!(o.label_smoothing >= 0 && o.label_smoothing <= 1)) fail(op, fmt::format("label_smoothing = {} given, 0 to 1 wanted", o.label_smoothing));
}

namespace {

/// Class weights (V) at the targets, 0 where they are ignored.
Tensor weights_of(const char* op, const Tensor& weight, const Tensor& ids, const Tensor& ignored, std::int64_t v, Dtype wide) {
  require_floating(op, weight, "the weight");
  if (weight.shape() != Shape{v}) fail(op, fmt::format("weight has shape {}, ({},) wanted: one factor a class", to_string(weight.shape()), v));
  const Tensor known = masked_fill(ids, ignored, 0).reshape({-1});
  return masked_fill(gather(weight.to(wide), 0, known).reshape(ids.shape()), ignored, 0);
}

/// The end of a loss over classes: the mean is over the rows that carry a target, or over their weights.
Tensor finish(const Tensor& each, const Tensor& weights, const LossOptions& o, std::int64_t carrying) {
  if (!weights.defined()) return reduce_loss(each, o.reduction, static_cast<double>(carrying));
  const Tensor weighted = mul(each, weights);
  return o.reduction == Reduction::mean ? div(sum(weighted), sum(weights)) : reduce_loss(weighted, o.reduction, 1);
}

}  // namespace

// cross_entropy: logits T, log-sum-exp and loss f32. Saves logits and lse; the gradient is written in the logits' dtype.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const LossOptions& o) {
  const char* op = "cross_entropy";
  require_floating(op, logits, "the logits");
  require_index(op, target, "the target");
  check_loss_options(op, o);
  if (logits.dim() == 0 || logits.shape().without(logits.dim() - 1) != target.shape())
    fail(op, fmt::format("logits {} and target {} given, (..., V) and (...) wanted", to_string(logits.shape()), to_string(target.shape())));
  const double smoothing = o.label_smoothing;
  const auto v = logits.size(-1), n = target.numel(), skip = o.ignore_index;
  const Tensor ids = dense(target);
  const auto carrying = check_targets(op, ids, v, skip);
  compute_dtype(OpId::cross_entropy, logits.dtype());  // a policy may ban it
  const Dtype wide = logits.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  Tensor weights;
  if (o.weight.defined()) {
    const Tensor ignored = eq(ids, static_cast<double>(skip));
    weights = weights_of(op, o.weight, ids, ignored, v, wide);
    if (smoothing != 0) {  // the even share is weighted class by class
      const Tensor log_p = log_softmax(logits.to(wide), -1);
      const Tensor even = masked_fill(sum(mul(log_p, o.weight.to(wide)), {.dims = {-1}}), ignored, 0);
      const Tensor picked = mul(nll_loss(log_p, ids, {.reduction = Reduction::none, .ignore_index = skip}), weights);
      const Tensor each = sub(mul(picked, 1 - smoothing), mul(even, smoothing / static_cast<double>(v)));
      return o.reduction == Reduction::mean ? div(sum(each), sum(weights)) : reduce_loss(each, o.reduction, 1);
    }
  }
  const Operand x = dense(Operand(logits));  // read as stored: the kernel computes in f32
  const Tensor losses = make_tensor(target.shape(), wide), lse = make_tensor({n}, wide);
  const PartScope timed(Part::head_loss);
  kernels::cross_entropy(cpu_queue(), logits.dtype(), ids.dtype(), data(x.value), data(ids), mutable_data(losses), mutable_data(lse), n, v, skip, 0,
                         smoothing);
  const Tensor each = record(OpId::cross_entropy, losses, {x}, {x.value, ids, lse}, [skip, smoothing](Backward& g) {
    const Tensor x = g.saved(0), ids = g.saved(1), lse = g.saved(2);
    if (g.create_graph()) {
      return g.through({x}, [=](const std::vector<Tensor>& v) {
        const Tensor log_p = log_softmax(is_16bit(v[0].dtype()) ? v[0].to(Dtype::f32) : v[0], -1);
        Tensor picked = nll_loss(log_p, ids, {.reduction = Reduction::none, .ignore_index = skip});
        if (smoothing == 0) return picked;
        const Tensor even = masked_fill(mean(log_p, {.dims = {-1}}), eq(ids, static_cast<double>(skip)), 0);
        return sub(mul(picked, 1 - smoothing), mul(even, smoothing));
      });
    }
    const PartScope timed(Part::head_loss);
    const Tensor dy = dense(g.dy()), dx = make_tensor(x.shape(), x.dtype());
    kernels::cross_entropy_backward(cpu_queue(), x.dtype(), dx.dtype(), ids.dtype(), data(x), data(ids), data(lse), data(dy), 1, mutable_data(dx),
                                    ids.numel(), x.size(-1), skip, 0, smoothing);
    g.set(0, dx);
  });
  return finish(each, weights, o, carrying);
}

// nll_loss: picks -log p[target]; f32.
Tensor nll_loss(const Tensor& log_p, const Tensor& target, const LossOptions& o) {
  require_floating("nll_loss", log_p);
  require_index("nll_loss", target, "the target");
  check_loss_options("nll_loss", o);
  if (log_p.dim() == 0 || log_p.shape().without(log_p.dim() - 1) != target.shape())
    fail("nll_loss",
         fmt::format("log-probabilities {} and target {} given, (..., V) and (...) wanted", to_string(log_p.shape()), to_string(target.shape())));
  const Tensor ids = dense(target);
  const auto v = log_p.size(-1), carrying = check_targets("nll_loss", ids, v, o.ignore_index);
  const Tensor ignored = eq(ids, static_cast<double>(o.ignore_index));
  const Tensor x = log_p.to(compute_dtype(OpId::nll_loss, log_p.dtype()));
  const Tensor picked = gather(x, -1, masked_fill(ids, ignored, 0).unsqueeze(-1)).squeeze(-1);
  const Tensor weights = o.weight.defined() ? weights_of("nll_loss", o.weight, ids, ignored, v, x.dtype()) : Tensor();
  return finish(masked_fill(neg(picked), ignored, 0), weights, o, carrying);
}

// ---- of one element and its target: read as stored, one pass in f32, a sum of f32 ---------------------

namespace {

using kernels::Loss;

/// Each element's loss in plain ops: what runs with create_graph.
Tensor plain(Loss loss, const Tensor& x, const Tensor& y, double beta) {
  switch (loss) {
    case Loss::squared: {
      const Tensor d = sub(x, y);
      return mul(d, d);
    }
    case Loss::absolute: return abs(sub(x, y));
    case Loss::smooth_l1:
    case Loss::huber: {
      const Tensor d = sub(x, y), size = abs(d), near = lt(size.detach(), beta), linear = sub(size, beta / 2);
      const double slope = loss == Loss::huber ? beta : 1, curve = loss == Loss::huber ? 0.5 : beta == 0 ? 0 : 0.5 / beta;
      return where(near, mul(mul(d, d), curve), mul(linear, slope));
    }
    case Loss::kl: {
      const Tensor none = eq(y.detach(), 0);
      return masked_fill(mul(y, sub(log(masked_fill(y, none, 1)), x)), none, 0);
    }
    case Loss::kl_log: return mul(exp(y), sub(y, x));
    case Loss::binary: {
      const Tensor yes = mul(y, clamp(log(x), {.min = -100})), no = mul(sub(1.0, y), clamp(log(sub(1.0, x)), {.min = -100}));
      return neg(add(yes, no));
    }
    default: return sub(softplus(x), mul(x, y));
  }
}

Tensor element_loss(OpId op, Loss loss, const Tensor& x, const Tensor& y, const LossOptions& o, double beta = 0) {
  require_floating(name(op), x);
  require_floating(name(op), y, "the target");
  if (op != OpId::kl_div) check_loss_options(name(op), o);
  if (x.shape() != y.shape())
    fail(name(op), fmt::format("shapes {} and {} given, equal ones wanted", to_string(x.shape()), to_string(y.shape())), "expand() one of them");
  const Dtype to = promote(compute_dtype(op, x.dtype()), compute_dtype(op, y.dtype())), dtype = promote(x.dtype(), y.dtype()),
              wide = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  const auto n = x.numel();
  if (o.weight.defined()) {
    LossOptions each = o;
    each.weight = {};
    each.reduction = Reduction::none;
    if (broadcast_shapes(name(op), o.weight.shape(), x.shape()) != x.shape())
      fail(name(op), fmt::format("weight has shape {}, one that broadcasts to {} wanted", to_string(o.weight.shape()), to_string(x.shape())));
    return reduce_loss(mul(element_loss(op, loss, x, y, each, beta), o.weight.to(to)), o.reduction, static_cast<double>(n));
  }
  const Operand a = dense(operand(x, dtype)), b = dense(operand(y, dtype));
  const double scale = o.reduction == Reduction::mean        ? 1 / static_cast<double>(n)
                       : o.reduction == Reduction::batchmean ? 1 / static_cast<double>(x.dim() == 0 ? 1 : x.size(0))
                                                             : 1;
  const bool reduced = o.reduction != Reduction::none;
  const Tensor losses = make_tensor(x.shape(), wide);
  kernels::loss(cpu_queue(), loss, dtype, data(a.value), data(b.value), mutable_data(losses), n, beta);
  Tensor result = reduced ? make_tensor({}, to) : operand(losses, to).value;
  if (reduced) kernels::reduce(cpu_queue(), kernels::Reduce::sum, wide, to, data(losses), mutable_data(result), 1, n, 1, scale);
  return record(op, result, {a, b}, {a.value, b.value}, [=](Backward& g) {
    const Tensor x = g.saved(0), y = g.saved(1);
    if (g.create_graph()) {
      return g.through({x, y}, [=](const std::vector<Tensor>& v) {
        const Tensor each = plain(loss, v[0].to(wide), v[1].to(wide), beta);
        return reduced ? mul(sum(each), scale) : each;
      });
    }
    const Tensor upstream = dense(operand(g.dy(), wide).value);
    const Tensor dx = g.wants(0) ? make_tensor(x.shape(), dtype) : Tensor(), dt = g.wants(1) ? make_tensor(x.shape(), dtype) : Tensor();
    kernels::loss_backward(cpu_queue(), loss, dtype, data(x), data(y), data(upstream), reduced ? 0 : 1, scale,
                           dx.defined() ? mutable_data(dx) : nullptr, dt.defined() ? mutable_data(dt) : nullptr, n, beta);
    g.set(0, dx);
    g.set(1, dt);
  });
}

}  // namespace

Tensor mse_loss(const Tensor& x, const Tensor& y, const LossOptions& o) { return element_loss(OpId::mse_loss, Loss::squared, x, y, o); }
Tensor l1_loss(const Tensor& x, const Tensor& y, const LossOptions& o) { return element_loss(OpId::l1_loss, Loss::absolute, x, y, o); }

Tensor smooth_l1_loss(const Tensor& x, const Tensor& y, const LossOptions& o) {
  if (!(o.beta >= 0)) fail("smooth_l1_loss", fmt::format("beta = {} given, 0 or more wanted", o.beta));
  return element_loss(OpId::smooth_l1_loss, Loss::smooth_l1, x, y, o, o.beta);
}
Tensor huber_loss(const Tensor& x, const Tensor& y, const LossOptions& o) {
  if (!(o.delta > 0)) fail("huber_loss", fmt::format("delta = {} given, above 0 wanted", o.delta), "l1_loss is what smooth_l1_loss gives at beta 0");
  return element_loss(OpId::huber_loss, Loss::huber, x, y, o, o.delta);
}
// kl_div: a target of 0 costs 0 whatever x is, -inf included.
Tensor kl_div(const Tensor& x, const Tensor& y, const LossOptions& o) {
  return element_loss(OpId::kl_div, o.log_target ? Loss::kl_log : Loss::kl, x, y, o);
}
// binary_cross_entropy: logarithms are held at -100, so that a certain and right answer costs 0 and a wrong one is finite.
Tensor binary_cross_entropy(const Tensor& probability, const Tensor& y, const LossOptions& o) {
  return element_loss(OpId::binary_cross_entropy, Loss::binary, probability, y, o);
}
// with_logits: softplus(x) - x y, finite for every finite x, infinite for a logit that overflowed against its target.
Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& y, const LossOptions& o) {
  return element_loss(OpId::binary_cross_entropy_with_logits, Loss::binary_logits, x, y, o);
}

}  // namespace mezzo
