// linear_cross_entropy.cpp - a model's head and its loss in one op. Products in the region's 16 bits accumulated in f32, softmax and loss f32.
// The logits exist for kChunk tokens at a time, and p - y takes their place. In grad mode forward already makes dx and dW from p - y, without 1/N and
// without the loss scale (so within [-1, 1], safe in 16 bits); backward multiplies both by the upstream scalar.
#include "ops/product.h"
#include "ops/targets.h"

namespace mezzo {
namespace {

constexpr std::int64_t kChunk = 256;   // tokens: enough for the products to run at full speed
constexpr std::int64_t kColumns = 64;  // rows of logits are padded to a multiple of this
constexpr std::int64_t kHead = 16;     // rows of p - y that are made beside the logits

struct Pieces {
  Tensor losses;  // (N) f32
  Tensor dx, dw;  // (N + 1, C) in x's dtype, its last row zeros; (V, C) f32: of the summed loss; undefined when not wanted
};

/// The rows whose tokens carry loss: head and loss are computed for these alone.
struct Carrying {
  Tensor rows;   // (M) i64: their numbers
  Tensor place;  // (N) i64: where each of all rows stands among them; M: nowhere
};
Carrying rows_that_carry(const Tensor& ids, std::int64_t ignore_index, std::int64_t count) {
  const auto n = ids.numel();
  Carrying out{make_tensor({count}, Dtype::i64), make_tensor({n}, Dtype::i64)};
  auto *rows = static_cast<std::int64_t*>(mutable_data(out.rows)), *place = static_cast<std::int64_t*>(mutable_data(out.place));
  std::int64_t next = 0;
  const auto scan = [&](const auto* id) {
    for (std::int64_t i = 0; i < n; ++i) {
      const bool carries = id[i] != ignore_index;
      place[i] = carries ? next : count;
      if (carries) rows[next++] = i;
    }
  };
  if (ids.dtype() == Dtype::i64) scan(static_cast<const std::int64_t*>(data(ids)));
  else scan(static_cast<const std::int32_t*>(data(ids)));
  return out;
}
/// Rows `index` (M) of x (N, C).
Tensor take_rows(const Tensor& x, const Tensor& index) {
  Tensor y = make_tensor({index.numel(), x.size(1)}, x.dtype());
  kernels::gather_rows(cpu_queue(), x.dtype(), x.dtype(), Dtype::i64, data(x), data(index), mutable_data(y), index.numel(), x.size(1));
  return y;
}

Pieces run(const Tensor& x, const Tensor& w, const Tensor& ids, const LossOptions& o, bool want_dx, bool want_dw) {
  const PartScope timed(Part::head_loss);
  auto& q = cpu_queue();
  const Dtype dtype = x.dtype();
  const auto n = x.size(0), c = x.size(1), v = w.size(0), ld = (v + kColumns - 1) / kColumns * kColumns;
  Pieces out;
  out.losses = make_tensor({n}, Dtype::f32);
  if (want_dx) {
    out.dx = make_tensor({n + 1, c}, dtype);
    const Tensor last = make_view(out.dx, {c}, contiguous_strides({c}), n * c);
    kernels::fill(q, dtype, 0, mutable_data(last), strided({&last}));
  }
  if (want_dw) {
    const MemoryScope scope(Memory::gradients);
    out.dw = make_tensor({v, c}, Dtype::f32);
    if (n == 0) kernels::fill(q, Dtype::f32, 0, mutable_data(out.dw), strided({&out.dw}));
  }
  const auto rows = std::min(n, kChunk);
  const Block logits = q.scratch(static_cast<std::size_t>(rows * ld) * sizeof(float)),
              lse = q.scratch(static_cast<std::size_t>(rows) * sizeof(float));
  const bool grad = want_dx || want_dw, narrower = dtype != Dtype::f32;
  const Block head = grad && narrower ? q.scratch(static_cast<std::size_t>(std::min(rows, kHead) * ld) * size_of(dtype)) : Block();
  void* const slopes = logits.as<void>();
  const auto id_size = static_cast<std::int64_t>(size_of(ids.dtype())), x_size = static_cast<std::int64_t>(size_of(dtype));
  for (std::int64_t r = 0; r < n; r += kChunk) {
    const auto m = std::min(kChunk, n - r);
    const char* xr = static_cast<const char*>(data(x)) + r * c * x_size;
    const char* tr = static_cast<const char*>(data(ids)) + r * id_size;
    kernels::Gemm g;
    g.a = g.b = dtype;
    g.c = Dtype::f32;
    g.m = m;
    g.n = v;
    g.k = c;
    g.trans_b = true;
    g.lda = g.ldb = c;
    g.ldc = ld;
    kernels::gemm(q, g, xr, data(w), logits.as<float>());
    kernels::cross_entropy(q, Dtype::f32, ids.dtype(), logits.as<float>(), tr, static_cast<float*>(mutable_data(out.losses)) + r, lse.as<float>(), m,
                           v, o.ignore_index, ld, o.label_smoothing);
    if (!grad) continue;
    const auto slopes_of = [&](std::int64_t begin, std::int64_t end, void* to) {
      kernels::cross_entropy_backward(q, Dtype::f32, dtype, ids.dtype(), logits.as<float>() + begin * ld, tr + begin * id_size,
                                      lse.as<float>() + begin, nullptr, 0, to, end - begin, v, o.ignore_index, ld, o.label_smoothing);
    };
    if (narrower) {
      // Rows of p - y are half as long as the logits': rows [n, 2n) of them lie where rows [n / 2, n) of those were. The first few go by way of
      // `head`.
      const auto first = std::min(m, kHead);
      slopes_of(0, first, head.as<void>());
      kernels::convert(q, dtype, dtype, head.as<void>(), slopes, first * ld);
      for (std::int64_t begin = first, end; begin < m; begin = end) {
        end = std::min(m, 2 * begin);
        slopes_of(begin, end, static_cast<char*>(slopes) + begin * ld * x_size);
      }
    } else {
      slopes_of(0, m, slopes);
    }
    if (want_dx) {
      kernels::Gemm d;
      d.a = d.b = d.c = dtype;
      d.m = m;
      d.n = c;
      d.k = v;
      d.lda = ld;
      d.ldb = d.ldc = c;
      kernels::gemm(q, d, slopes, data(w), static_cast<char*>(mutable_data(out.dx)) + r * c * x_size);
    }
    if (want_dw) {
      kernels::Gemm d;
      d.a = d.b = dtype;
      d.c = Dtype::f32;
      d.m = v;
      d.n = c;
      d.k = m;
      d.trans_a = true;
      d.lda = ld;
      d.ldb = d.ldc = c;
      d.beta = r == 0 ? 0 : 1;
      kernels::gemm(q, d, slopes, xr, mutable_data(out.dw));
    }
  }
  return out;
}

}  // namespace

Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& target, const LossOptions& o) {
  const char* op = "linear_cross_entropy";
  require_floating(op, x);
  require_floating(op, w, "w");
  require_index(op, target, "the target");
  if (w.dim() != 2 || x.dim() == 0 || x.size(-1) != w.size(1))
    fail(op, fmt::format("x {} and w {} given, (..., C) and (V, C) wanted", to_string(x.shape()), to_string(w.shape())));
  if (x.shape().without(x.dim() - 1) != target.shape())
    fail(op, fmt::format("x {} and target {} given, (..., C) and (...) wanted", to_string(x.shape()), to_string(target.shape())));
  const Operand xo = dense(operand(OpId::linear_cross_entropy, x)), wo = dense(operand(OpId::linear_cross_entropy, w));
  const Dtype dtype = xo.value.dtype();
  if (wo.value.dtype() != dtype)
    fail(op, fmt::format("dtypes {} and {} given, equal ones wanted", name(dtype), name(wo.value.dtype())),
         "convert with to(), or run inside amp::autocast");
  check_loss_options(op, o);
  if (dtype == Dtype::f64 || o.reduction == Reduction::none || o.weight.defined()) return cross_entropy(linear(x, w), target, o);
  const auto c = w.size(1), n = target.numel();
  const Tensor ids = dense(target), flat_ids = make_view(ids, {n}, contiguous_strides({n}), ids.impl()->offset);
  const Tensor rows = make_view(xo.value, {n, c}, contiguous_strides({n, c}), xo.value.impl()->offset);
  const auto carrying = check_targets(op, ids, w.size(0), o.ignore_index);
  const bool grad = context().grad;
  const bool all = carrying == n;
  const Carrying kept = all ? Carrying{} : rows_that_carry(flat_ids, o.ignore_index, carrying);
  const auto taken = [&] {  // targets as rows of one number
    Tensor wide = flat_ids.to(Dtype::i64), t = make_tensor({carrying}, Dtype::i64);
    kernels::gather(cpu_queue(), Dtype::i64, Dtype::i64, data(wide), data(kept.rows), mutable_data(t), 1, n, carrying, 1);
    return t;
  };
  Pieces p =
      run(all ? rows : take_rows(rows, kept.rows), wo.value, all ? flat_ids : taken(), o, grad && x.requires_grad(), grad && w.requires_grad());
  const double scale = o.reduction == Reduction::mean ? 1 / static_cast<double>(carrying) : 1;
  const Tensor loss = make_tensor({}, Dtype::f32);
  kernels::reduce(cpu_queue(), kernels::Reduce::sum, Dtype::f32, Dtype::f32, data(p.losses), mutable_data(loss), 1, carrying, 1, scale);
  const bool round = context().policy.rounds_like_torch();
  return record(OpId::linear_cross_entropy, loss, {xo, wo}, {xo.value, wo.value, ids, p.dx, p.dw, kept.place}, [=](Backward& g) {
    const Tensor x = g.saved(0), w = g.saved(1), ids = g.saved(2);
    if (g.create_graph()) return g.through({x, w}, [=](const std::vector<Tensor>& v) { return cross_entropy(linear(v[0], v[1]), ids, o); });
    const PartScope timed(Part::head_loss);
    const double s = g.dy().item() * scale;
    if (g.wants(0)) {
      const Tensor dx = mul(g.saved(3), s);  // (M + 1, C)
      g.set(0, (all ? dx.narrow(0, 0, n) : take_rows(dx, g.saved(5))).reshape(x.shape()));
    }
    if (!g.wants(1)) return;
    const auto dw = [&] {  // scaled where it lies when the graph is about to let go of it
      Tensor t = g.take_saved(4);
      if (exclusively_owned(t)) kernels::scale_inplace(cpu_queue(), Dtype::f32, mutable_data(t), t.numel(), s);
      else t = mul(t, s);
      return t;
    };
    g.set(1, round ? dw().to(x.dtype()) : dw());
  });
}

}  // namespace mezzo
