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

/// The head's three products of m tokens.
struct Head {
  Dtype dtype;
  std::int64_t c, v, ld;  // width; vocabulary; elements from one row of logits to the next

  kernels::Gemm logits(std::int64_t m) const {
    kernels::Gemm g = product(m, v, c, Dtype::f32);
    g.trans_b = true;
    g.lda = g.ldb = c;
    g.ldc = ld;
    return g;
  }
  kernels::Gemm input_grad(std::int64_t m) const {
    kernels::Gemm g = product(m, c, v, dtype);
    g.lda = ld;
    g.ldb = g.ldc = c;
    return g;
  }
  kernels::Gemm weight_grad(std::int64_t m, bool accumulate) const {
    kernels::Gemm g = product(v, c, m, Dtype::f32);
    g.trans_a = true;
    g.lda = ld;
    g.ldb = g.ldc = c;
    g.beta = accumulate ? 1 : 0;
    return g;
  }

 private:
  kernels::Gemm product(std::int64_t m, std::int64_t n, std::int64_t k, Dtype to) const {
    kernels::Gemm g;
    g.a = g.b = dtype;
    g.c = to;
    g.m = m, g.n = n, g.k = k;
    return g;
  }
};

/// Logits, softmax and loss of a chunk of tokens, and p - y in the logits' place.
class Chunk {
 public:
  Chunk(const Head& head, std::int64_t rows, Dtype ids, const LossOptions& o, bool grad)
      : head_(head),
        ids_(ids),
        o_(o),
        logits_(cpu_queue().scratch(static_cast<std::size_t>(rows * head.ld) * sizeof(float))),
        lse_(cpu_queue().scratch(static_cast<std::size_t>(rows) * sizeof(float))) {
    if (grad && narrower()) first_ = cpu_queue().scratch(static_cast<std::size_t>(std::min(rows, kHead) * head.ld) * size_of(head.dtype));
  }

  void losses(std::int64_t m, const void* x, const Tensor& w, const char* ids, float* to) {
    kernels::gemm(cpu_queue(), head_.logits(m), x, data(w), logits_.as<float>());
    kernels::cross_entropy(cpu_queue(), Dtype::f32, ids_, logits_.as<float>(), ids, to, lse_.as<float>(), m, head_.v, o_.ignore_index, head_.ld,
                           o_.label_smoothing);
  }

  /// (m, ld) in the head's dtype.
  const void* slopes(std::int64_t m, const char* ids) {
    if (!narrower()) {
      slopes_of(0, m, ids, logits_.as<void>());
      return logits_.as<void>();
    }
    // Rows of p - y are half as long as the logits': rows [n, 2n) of them lie where rows [n / 2, n) of those were. The first few go by way of
    // `first_`.
    const auto few = std::min(m, kHead), row = head_.ld * static_cast<std::int64_t>(size_of(head_.dtype));
    slopes_of(0, few, ids, first_.as<void>());
    kernels::convert(cpu_queue(), head_.dtype, head_.dtype, first_.as<void>(), logits_.as<void>(), few * head_.ld);
    for (std::int64_t begin = few, end; begin < m; begin = end) {
      end = std::min(m, 2 * begin);
      slopes_of(begin, end, ids, logits_.as<char>() + begin * row);
    }
    return logits_.as<void>();
  }

 private:
  bool narrower() const { return head_.dtype != Dtype::f32; }
  void slopes_of(std::int64_t begin, std::int64_t end, const char* ids, void* to) {
    kernels::cross_entropy_backward(cpu_queue(), Dtype::f32, head_.dtype, ids_, logits_.as<float>() + begin * head_.ld,
                                    ids + begin * static_cast<std::int64_t>(size_of(ids_)), lse_.as<float>() + begin, nullptr, 0, to, end - begin,
                                    head_.v, o_.ignore_index, head_.ld, o_.label_smoothing);
  }

  Head head_;
  Dtype ids_;
  const LossOptions& o_;
  Block logits_, lse_, first_;
};

Pieces run(const Tensor& x, const Tensor& w, const Tensor& ids, const LossOptions& o, bool want_dx, bool want_dw) {
  const PartScope timed(Part::head_loss);
  auto& q = cpu_queue();
  const Dtype dtype = x.dtype();
  const auto n = x.size(0), c = x.size(1), v = w.size(0);
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
  const Head head{dtype, c, v, (v + kColumns - 1) / kColumns * kColumns};
  Chunk chunk(head, std::min(n, kChunk), ids.dtype(), o, want_dx || want_dw);
  const auto id_size = static_cast<std::int64_t>(size_of(ids.dtype())), row = c * static_cast<std::int64_t>(size_of(dtype));
  for (std::int64_t r = 0; r < n; r += kChunk) {
    const auto m = std::min(kChunk, n - r);
    const char* const xr = static_cast<const char*>(data(x)) + r * row;
    const char* const ids_r = static_cast<const char*>(data(ids)) + r * id_size;
    chunk.losses(m, xr, w, ids_r, static_cast<float*>(mutable_data(out.losses)) + r);
    if (!want_dx && !want_dw) continue;
    const void* const slopes = chunk.slopes(m, ids_r);
    if (want_dx) kernels::gemm(q, head.input_grad(m), slopes, data(w), static_cast<char*>(mutable_data(out.dx)) + r * row);
    if (want_dw) kernels::gemm(q, head.weight_grad(m, r > 0), slopes, xr, mutable_data(out.dw));
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
