// attention.cpp - softmax(scale q k^T + mask) v by blocks. Storage T, scores and sums f32, one rounding on store; saves q k v, the output and the
// rows' log-sum-exp, never a T x T of a head.
#include <cmath>

#include "ops/common.h"

namespace mezzo {
namespace {

/// The random numbers of a call's dropout.
struct Draw {
  std::uint64_t seed = 0, offset = 0;
};

Draw draw_for(const AttentionOptions& o, std::int64_t scores) {
  if (o.dropout == 0) return {};
  Generator& random = default_generator();
  return {random.seed(), random.reserve(static_cast<std::uint64_t>((scores + 3) / 4))};
}

void check_options(const char* op, const AttentionOptions& o) {
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(op, fmt::format("dropout = {} given, 0 <= p < 1 wanted", o.dropout));
}

Tensor prepared_mask(const char* op, const AttentionOptions& o, Dtype dtype) {
  if (!o.mask.defined()) return {};
  if (o.mask.requires_grad() && context().grad)
    fail(op, "the mask requires grad", "give it through detach(): attention has no gradient for its mask");
  const Dtype added = dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  if (o.mask.dtype() == Dtype::boolean || o.mask.dtype() == Dtype::u8) return o.mask.to(Dtype::boolean);
  const auto& c = context();
  const bool rounds = c.autocast && c.policy.rounds_like_torch() && eligible(o.mask.dtype());  // torch casts the mask along with q, k and v
  return (rounds ? o.mask.to(dtype) : o.mask).to(added);
}

void put_mask(kernels::Attention& a, const Tensor& mask) {
  if (!mask.defined()) return;
  const auto s = broadcast_strides(mask, {a.b, a.h, a.tq, a.tk});
  a.mask = data(mask);
  a.mask_dtype = mask.dtype();
  a.mask_strides = {s[0], s[1], s[2]};
  a.mask_stride_k = s[3];
}

kernels::HeadStrides head_strides(const Tensor& t) {
  const auto& s = t.impl()->strides;
  return {s[0], s[1], s[2]};
}

/// A new (B, H, T, D) tensor laid out like `t` of that shape: projections come as (B, T, H, D) and go back to such, without a copy on the way.
Tensor laid_out_like(const Tensor& t, Dtype dtype) {
  const auto b = t.size(0), h = t.size(1), n = t.size(2), d = t.size(3);
  const auto& s = t.impl()->strides;
  if (h == 1 || n == 1 || s[1] > s[2]) return make_tensor(t.shape(), dtype);
  return make_view(make_tensor({b, n, h, d}, dtype), {b, h, n, d}, {n * h * d, d, h * d, 1}, 0);
}

/// t, or a copy, whose heads' elements lie side by side.
Tensor with_dense_heads(const Tensor& t) { return t.impl()->strides[3] == 1 || t.size(3) == 1 ? t : dense(t); }

const void* advanced(const void* p, Dtype dtype, std::int64_t elements) {
  return static_cast<const std::byte*>(p) + elements * static_cast<std::int64_t>(size_of(dtype));
}
void* advanced(void* p, Dtype dtype, std::int64_t elements) { return const_cast<void*>(advanced(static_cast<const void*>(p), dtype, elements)); }

/// Runs attention for each document of a row apart: f(its job, where it starts, where its log-sum-exp does). Without documents: the whole once.
template <class F> void each_document(const kernels::Attention& a, const std::vector<std::int64_t>& lengths, F f) {
  if (lengths.empty()) return f(a, std::int64_t{0}, std::int64_t{0});
  std::int64_t start = 0;
  for (const auto n : lengths) {
    kernels::Attention one = a;
    one.tq = one.tk = n;
    f(one, start, a.b * a.h * start);
    start += n;
  }
}

/// What the forward of both forms runs.
void run_forward(const kernels::Attention& a, const std::vector<std::int64_t>& lengths, const void* q, const void* k, const void* v, void* out,
                 float* lse) {
  const PartScope timed(Part::attention);
  each_document(a, lengths, [&](const kernels::Attention& one, std::int64_t t, std::int64_t at) {
    kernels::attention(cpu_queue(), one, advanced(q, a.dtype, t * a.q.t), advanced(k, a.dtype, t * a.k.t), advanced(v, a.dtype, t * a.v.t),
                       advanced(out, a.dtype, t * a.out.t), lse + at);
  });
}
struct Gradients {
  void *dq, *dk, *dv;
};
void run_backward(const kernels::Attention& a, const std::vector<std::int64_t>& lengths, const kernels::AttentionGrad& s, const void* q,
                  const void* k, const void* v, const void* out, const float* lse, const void* dout, Gradients g) {
  const PartScope timed(Part::attention);
  each_document(a, lengths, [&](const kernels::Attention& one, std::int64_t t, std::int64_t at) {
    const auto p = [&](auto* x, const kernels::HeadStrides& strides) { return advanced(x, a.dtype, t * strides.t); };
    kernels::attention_backward(cpu_queue(), one, s, p(q, a.q), p(k, a.k), p(v, a.v), p(out, a.out), lse + at, p(dout, s.dout), p(g.dq, s.dq),
                                p(g.dk, s.dk), p(g.dv, s.dv));
  });
}

/// Error unless the documents fill a row of t tokens and nothing stands in the way; what keeps them apart where the definition runs: (t, t).
void check_lengths(const char* op, const AttentionOptions& o, std::int64_t tq, std::int64_t tk) {
  if (o.lengths.empty()) return;
  std::int64_t sum = 0;
  for (const auto n : o.lengths) {
    if (n < 1) fail(op, fmt::format("a document of {} tokens given, 1 or more wanted", n));
    sum += n;
  }
  if (sum != tq || tq != tk)
    fail(op, fmt::format("documents of {} tokens in all given for {} queries and {} keys, equal numbers wanted", sum, tq, tk));
  if (o.mask.defined() || o.dropout > 0)
    fail(op, "documents together with a mask or dropout given", "leave .mask and .dropout out, or put the documents into the mask");
}
Tensor document_mask(const std::vector<std::int64_t>& lengths) {
  if (lengths.empty()) return {};
  std::vector<std::int64_t> owner;
  for (std::size_t i = 0; i < lengths.size(); ++i) owner.insert(owner.end(), static_cast<std::size_t>(lengths[i]), static_cast<std::int64_t>(i));
  const auto t = static_cast<std::int64_t>(owner.size());
  const Tensor ids = from_span(std::span<const std::int64_t>(owner), {t});
  return eq(ids.reshape({t, 1}), ids);
}

/// The definition in plain ops: what runs in f64, and with create_graph. q (B, H, Tq, D), k, v (B, Hkv, Tk, D).
Tensor plain_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, bool causal, double scale, double p, Draw draw) {
  const auto b = q.size(0), h = q.size(1), h_kv = k.size(1), tq = q.size(2), tk = k.size(2);
  const auto widen = [](const Tensor& t) { return is_16bit(t.dtype()) ? t.to(Dtype::f32) : t; };
  const auto spread = [&](const Tensor& t) {  // each key head serves h / h_kv query heads
    return h == h_kv ? t : t.unsqueeze(2).expand({b, h_kv, h / h_kv, tk, t.size(3)}).reshape({b, h, tk, t.size(3)});
  };
  const double never = -std::numeric_limits<double>::infinity();
  Tensor s = mul(matmul(widen(q), spread(widen(k)).transpose(-2, -1)), scale);
  if (causal) {
    const Tensor last = add(arange(tq, {.dtype = Dtype::i64}), static_cast<double>(tk - tq)).reshape({tq, 1});
    s = masked_fill(s, gt(arange(tk, {.dtype = Dtype::i64}), last), never);
  }
  if (mask.defined()) s = mask.dtype() == Dtype::boolean ? masked_fill(s, eq(mask, 0), never) : add(s, mask.to(s.dtype()));
  // A row without a key gives zeros: its scores are replaced before and its probabilities after.
  const Tensor none = eq(amax(s.detach(), {.dims = {-1}, .keepdim = true}), never);
  Tensor y = masked_fill(softmax(masked_fill(s, none, 0), -1), none, 0);
  if (p > 0) {
    Tensor keep = ones({b, h, tq, tk}, {.dtype = y.dtype()});
    kernels::dropout(cpu_queue(), keep.dtype(), data(keep), mutable_data(keep), keep.numel(), p, draw.seed, draw.offset);
    y = mul(y, keep);
  }
  return matmul(y, spread(widen(v))).to(q.dtype());
}

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o) {
  const char* op = "scaled_dot_product_attention";
  for (const Tensor* t : {&q, &k, &v}) {
    require_floating(op, *t, t == &q ? "q" : t == &k ? "k" : "v");
    if (t->dim() != 4) fail(op, fmt::format("{} has shape {}, (B, H, T, D) wanted", t == &q ? "q" : t == &k ? "k" : "v", to_string(t->shape())));
  }
  check_options(op, o);
  if (k.shape() != v.shape() || q.size(0) != k.size(0) || q.size(3) != k.size(3) || k.size(1) == 0 || q.size(1) % k.size(1) != 0)
    fail(op, fmt::format("q {}, k {}, v {} given", to_string(q.shape()), to_string(k.shape()), to_string(v.shape())),
         "k and v have one shape; batches and head sizes are equal; the query heads are a multiple of the key heads");
  std::array<Operand, 3> in{operand(OpId::scaled_dot_product_attention, q), operand(OpId::scaled_dot_product_attention, k),
                            operand(OpId::scaled_dot_product_attention, v)};
  const Dtype dtype = in[0].value.dtype();
  if (in[1].value.dtype() != dtype || in[2].value.dtype() != dtype)
    fail(op, fmt::format("dtypes {}, {}, {} given, equal ones wanted", name(q.dtype()), name(k.dtype()), name(v.dtype())),
         "convert with to(), or run inside amp::autocast");
  for (auto& t : in) t.value = with_dense_heads(t.value);

  kernels::Attention a;
  a.dtype = dtype;
  a.b = q.size(0);
  a.h = q.size(1);
  a.h_kv = k.size(1);
  a.tq = q.size(2);
  a.tk = k.size(2);
  a.d = q.size(3);
  a.scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(a.d)));
  a.causal = o.is_causal;
  a.dropout = o.dropout;
  check_lengths(op, o, a.tq, a.tk);
  const Tensor mask = prepared_mask(op, o, dtype);
  if (mask.defined() && broadcast_shapes(op, mask.shape(), {a.b, a.h, a.tq, a.tk}) != Shape{a.b, a.h, a.tq, a.tk})
    fail(op, fmt::format("the mask has shape {}, one that broadcasts to {} wanted", to_string(mask.shape()), to_string(Shape{a.b, a.h, a.tq, a.tk})));
  const Draw draw = draw_for(o, a.b * a.h * a.tq * a.tk);
  a.seed = draw.seed;
  a.offset = draw.offset;
  if (dtype == Dtype::f64) return plain_attention(q, k, v, mask.defined() ? mask : document_mask(o.lengths), o.is_causal, a.scale, o.dropout, draw);
  put_mask(a, mask);
  a.q = head_strides(in[0].value);
  a.k = head_strides(in[1].value);
  a.v = head_strides(in[2].value);
  const Tensor y = laid_out_like(in[0].value, dtype), lse = make_tensor({a.b, a.h, a.tq}, Dtype::f32);
  a.out = head_strides(y);
  run_forward(a, o.lengths, data(in[0].value), data(in[1].value), data(in[2].value), mutable_data(y), static_cast<float*>(mutable_data(lse)));
  return record(OpId::scaled_dot_product_attention, y, {in[0], in[1], in[2]}, {in[0].value, in[1].value, in[2].value, y, lse, mask},
                [a, draw, lengths = o.lengths](Backward& g) {
                  const Tensor q = g.saved(0), k = g.saved(1), v = g.saved(2), y = g.saved(3), lse = g.saved(4), mask = g.saved(5);
                  if (g.create_graph())
                    return g.through({q, k, v}, [=](const std::vector<Tensor>& t) {
                      return plain_attention(t[0], t[1], t[2], mask.defined() ? mask : document_mask(lengths), a.causal, a.scale, a.dropout, draw);
                    });
                  const Tensor dy = with_dense_heads(g.dy()), dq = laid_out_like(q, a.dtype), dk = laid_out_like(k, a.dtype),
                               dv = laid_out_like(v, a.dtype);
                  run_backward(a, lengths, {head_strides(dy), head_strides(dq), head_strides(dk), head_strides(dv)}, data(q), data(k), data(v),
                               data(y), static_cast<const float*>(data(lse)), data(dy), {mutable_data(dq), mutable_data(dk), mutable_data(dv)});
                  g.set(0, dq);
                  g.set(1, dk);
                  g.set(2, dv);
                });
}

// packed_attention: reads q, k, v where the projection wrote them and writes (B, T, C), so that nothing is transposed or copied.
Tensor packed_attention(const Tensor& qkv, int heads, const AttentionOptions& o) {
  const char* op = "packed_attention";
  require_floating(op, qkv, "qkv");
  check_options(op, o);
  if (qkv.dim() != 3 || heads < 1 || qkv.size(2) % (3 * static_cast<std::int64_t>(heads)) != 0)
    fail(op, fmt::format("qkv has shape {} for {} heads, (B, T, 3 heads D) wanted", to_string(qkv.shape()), heads));
  const Operand in = dense(operand(OpId::packed_attention, qkv));
  const auto b = qkv.size(0), t = qkv.size(1), c = qkv.size(2) / 3, h = static_cast<std::int64_t>(heads), d = c / h;
  kernels::Attention a;
  a.dtype = in.value.dtype();
  a.b = b;
  a.h = h;
  a.h_kv = h;
  a.tq = t;
  a.tk = t;
  a.d = d;
  a.q = a.k = a.v = {t * 3 * c, d, 3 * c};
  a.out = {t * c, d, c};
  a.scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(d)));
  a.causal = o.is_causal;
  a.dropout = o.dropout;
  check_lengths(op, o, t, t);
  const Tensor mask = prepared_mask(op, o, a.dtype);
  const Draw draw = draw_for(o, b * h * t * t);
  a.seed = draw.seed;
  a.offset = draw.offset;
  put_mask(a, mask);
  const auto definition = [=, lengths = o.lengths](const Tensor& x, const Tensor& m) {
    const Tensor parts = x.reshape({b, t, 3, h, d});
    const auto part = [&](int i) { return parts.select(2, i).transpose(1, 2); };
    return plain_attention(part(0), part(1), part(2), m.defined() ? m : document_mask(lengths), a.causal, a.scale, a.dropout, draw)
        .transpose(1, 2)
        .reshape({b, t, c});
  };
  if (a.dtype == Dtype::f64) return definition(qkv, mask);
  const Tensor y = make_tensor({b, t, c}, a.dtype), lse = make_tensor({b, h, t}, Dtype::f32);
  const auto part = [=](const Tensor& x, std::int64_t i) { return advanced(mutable_data(x), a.dtype, i * c); };
  run_forward(a, o.lengths, part(in.value, 0), part(in.value, 1), part(in.value, 2), mutable_data(y), static_cast<float*>(mutable_data(lse)));
  return record(OpId::packed_attention, y, {in}, {in.value, y, lse, mask}, [=, lengths = o.lengths](Backward& g) {
    const Tensor x = g.saved(0), y = g.saved(1), lse = g.saved(2), mask = g.saved(3);
    if (g.create_graph()) return g.through({x}, [=](const std::vector<Tensor>& v) { return definition(v[0], mask); });
    const Tensor dy = dense(g.dy()), dx = make_tensor(x.shape(), a.dtype);
    run_backward(a, lengths, {a.out, a.q, a.k, a.v}, part(x, 0), part(x, 1), part(x, 2), data(y), static_cast<const float*>(data(lse)), data(dy),
                 {part(dx, 0), part(dx, 1), part(dx, 2)});
    g.set(0, dx);
  });
}

}  // namespace mezzo
