// attention.cpp - softmax(scale q k^T + mask) v by blocks. Storage T, scores and sums f32, one rounding on store; saves q k v, the output and the
// rows' log-sum-exp, never a T x T of a head.
#include <cmath>

#include "ops/common.h"

namespace mezzo {
namespace {

/// What both forms of the op share once their operands are known.
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
  for (auto& t : in)
    if (t.value.impl()->strides[3] != 1 && t.value.size(3) != 1) t = dense(t);

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
  const Tensor mask = prepared_mask(op, o, dtype);
  if (mask.defined() && broadcast_shapes(op, mask.shape(), {a.b, a.h, a.tq, a.tk}) != Shape{a.b, a.h, a.tq, a.tk})
    fail(op, fmt::format("the mask has shape {}, one that broadcasts to {} wanted", to_string(mask.shape()), to_string(Shape{a.b, a.h, a.tq, a.tk})));
  const Draw draw = draw_for(o, a.b * a.h * a.tq * a.tk);
  a.seed = draw.seed;
  a.offset = draw.offset;
  if (dtype == Dtype::f64) return plain_attention(q, k, v, mask, o.is_causal, a.scale, o.dropout, draw);
  put_mask(a, mask);
  a.q = head_strides(in[0].value);
  a.k = head_strides(in[1].value);
  a.v = head_strides(in[2].value);
  const Tensor y = make_tensor(q.shape(), dtype), lse = make_tensor({a.b, a.h, a.tq}, Dtype::f32);
  a.out = head_strides(y);
  const PartScope timed(Part::attention);
  kernels::attention(cpu_queue(), a, data(in[0].value), data(in[1].value), data(in[2].value), mutable_data(y),
                     static_cast<float*>(mutable_data(lse)));
  return record(
      OpId::scaled_dot_product_attention, y, {in[0], in[1], in[2]}, {in[0].value, in[1].value, in[2].value, y, lse, mask}, [a, draw](Backward& g) {
        const Tensor q = g.saved(0), k = g.saved(1), v = g.saved(2), y = g.saved(3), lse = g.saved(4), mask = g.saved(5);
        if (g.create_graph())
          return g.through({q, k, v},
                           [=](const std::vector<Tensor>& t) { return plain_attention(t[0], t[1], t[2], mask, a.causal, a.scale, a.dropout, draw); });
        const PartScope timed(Part::attention);
        const Tensor dy = dense(g.dy()), dq = make_tensor(q.shape(), a.dtype), dk = make_tensor(k.shape(), a.dtype),
                     dv = make_tensor(v.shape(), a.dtype);
        const kernels::AttentionGrad strides{head_strides(dy), head_strides(dq), head_strides(dk), head_strides(dv)};
        kernels::attention_backward(cpu_queue(), a, strides, data(q), data(k), data(v), data(y), static_cast<const float*>(data(lse)), data(dy),
                                    mutable_data(dq), mutable_data(dk), mutable_data(dv));
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
  const Tensor mask = prepared_mask(op, o, a.dtype);
  const Draw draw = draw_for(o, b * h * t * t);
  a.seed = draw.seed;
  a.offset = draw.offset;
  put_mask(a, mask);
  const auto definition = [=](const Tensor& x, const Tensor& m) {
    const Tensor parts = x.reshape({b, t, 3, h, d});
    const auto part = [&](int i) { return parts.select(2, i).transpose(1, 2); };
    return plain_attention(part(0), part(1), part(2), m, a.causal, a.scale, a.dropout, draw).transpose(1, 2).reshape({b, t, c});
  };
  if (a.dtype == Dtype::f64) return definition(qkv, mask);
  const auto at = [c](const void* p, std::int64_t part) { return static_cast<const std::uint16_t*>(p) + part * c; };
  const auto at32 = [c](const void* p, std::int64_t part) { return static_cast<const float*>(p) + part * c; };
  const auto part = [=](const Tensor& x, std::int64_t i) {
    return is_16bit(x.dtype()) ? static_cast<const void*>(at(data(x), i)) : static_cast<const void*>(at32(data(x), i));
  };
  const Tensor y = make_tensor({b, t, c}, a.dtype), lse = make_tensor({b, h, t}, Dtype::f32);
  const PartScope timed(Part::attention);
  kernels::attention(cpu_queue(), a, part(in.value, 0), part(in.value, 1), part(in.value, 2), mutable_data(y),
                     static_cast<float*>(mutable_data(lse)));
  return record(OpId::packed_attention, y, {in}, {in.value, y, lse, mask}, [=](Backward& g) {
    const Tensor x = g.saved(0), y = g.saved(1), lse = g.saved(2), mask = g.saved(3);
    if (g.create_graph()) return g.through({x}, [=](const std::vector<Tensor>& v) { return definition(v[0], mask); });
    const PartScope timed(Part::attention);
    const Tensor dy = dense(g.dy()), dx = make_tensor(x.shape(), a.dtype);
    const kernels::AttentionGrad strides{a.out, a.q, a.k, a.v};
    const auto out = [&](std::int64_t i) { return const_cast<void*>(part(dx, i)); };
    kernels::attention_backward(cpu_queue(), a, strides, part(x, 0), part(x, 1), part(x, 2), data(y), static_cast<const float*>(data(lse)), data(dy),
                                out(0), out(1), out(2));
    g.set(0, dx);
  });
}

}  // namespace mezzo
