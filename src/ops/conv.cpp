// conv.cpp - convolutions and transposed ones. Storage T, products exact, accumulate f32, one rounding to nearest even on store; a weight's
// gradient goes in f32 into an f32 leaf. Saves both operands as they were multiplied.
//
// A convolution ties three tensors together, x (N, C, in), w (O, C / groups, kernel) and y (N, O, out): the sum of all its products x w y is
// linear in each, and its derivative in one of them, given the other two, is one of three forms. conv computes y, conv_transpose x; and the
// gradients of a form in its two operands are the other two forms, so derivatives of any order are built from these three.
#include <algorithm>
#include <array>

#include "ops/common.h"
#include "ops/per_dim.h"

namespace mezzo {
namespace {

enum class Form : std::uint8_t { y, x, w };

/// What a form was called as, and with what sizes.
struct Call {
  OpId op;
  kernels::Conv sizes;
  int spatial;         // dimensions of the caller's
  bool round = false;  // torch's policy: gradients of 16-bit operands are rounded to 16 bits

  /// The shape of one of the three tensors.
  Shape shape(Form f) const {
    const auto& s = sizes;
    Shape out = f == Form::w ? Shape{s.o, s.c / s.groups} : Shape{s.n, f == Form::x ? s.c : s.o};
    const auto& sides = f == Form::w ? s.kernel : f == Form::x ? s.in : s.out;
    for (int d = 3 - spatial; d < 3; ++d) out.push_back(sides[static_cast<std::size_t>(d)]);
    return out;
  }
};

/// x (N, C, ...) seen as (N, ..., C), and back.
Tensor channels_last(const Tensor& t) {
  Shape shape{t.size(0)};
  detail::Strides strides{t.impl()->strides[0]};
  for (std::size_t d = 2; d < t.shape().size(); ++d) strides[shape.size()] = t.impl()->strides[d], shape.push_back(t.shape()[d]);
  strides[shape.size()] = t.impl()->strides[1];
  shape.push_back(t.size(1));
  return make_view(t, shape, strides, t.impl()->offset);
}

/// t in `dtype` with contiguous elements: itself where it is that, else a copy.
Tensor prepared(const Tensor& t, Dtype dtype) {
  if (t.dtype() == dtype && t.is_contiguous()) return t;
  Tensor c = make_tensor(t.shape(), dtype);
  copy_elements(c, t);
  return c;
}

/// The tensors of a convolution as the kernels take them.
class Prepared {
 public:
  Prepared(const Call& call, Dtype given) : call_(call), sizes_(call.sizes), given_(given) { sizes_.dtype = kernels::conv_dtype(given); }

  void give(Form f, const Tensor& t) {
    auto& slot = slots_[static_cast<std::size_t>(f)];
    if (!slot.defined()) slot = prepared(f == Form::w ? t : channels_last(t), sizes_.dtype);
  }
  const Tensor& get(Form f) const { return slots_[static_cast<std::size_t>(f)]; }

  /// x or y in `to` (the operands' dtype, or f32), from the other two; bias (f32, or f64) is added before the one rounding.
  Tensor activation(Form f, Dtype to, const Tensor& bias = {}) {
    const bool late_bias = bias.defined() && f == Form::x;
    sizes_.result = sizes_.dtype == Dtype::f64 || (to == sizes_.dtype && !late_bias) ? sizes_.dtype : Dtype::f32;
    Tensor y = make_tensor(call_.shape(f), to), seen = channels_last(y);
    const Tensor out = to == sizes_.result && seen.is_contiguous() ? seen : make_tensor(seen.shape(), sizes_.result);
    const auto pointer = [](const Tensor& t) { return t.defined() ? data(t) : nullptr; };
    if (f == Form::y) kernels::conv(cpu_queue(), sizes_, data(get(Form::x)), data(get(Form::w)), pointer(bias), mutable_data(out));
    else kernels::conv_input_grad(cpu_queue(), sizes_, data(get(Form::w)), data(get(Form::y)), mutable_data(out));
    if (late_bias)
      kernels::binary(cpu_queue(), kernels::Binary::add, out.dtype(), data(out), data(bias), mutable_data(out), strided({&out, &out, &bias}));
    if (out.impl() != seen.impl()) copy_elements(seen, out);
    return y;
  }
  /// w's gradient into a buffer of f32 (f64 for f64).
  void weight(const Tensor& out, bool accumulate) {
    sizes_.result = sizes_.dtype;  // plays no part here
    kernels::conv_weight_grad(cpu_queue(), sizes_, data(get(Form::x)), data(get(Form::y)), mutable_data(out), accumulate);
  }
  Dtype wide() const { return sizes_.dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }
  Dtype given() const { return given_; }

 private:
  const Call& call_;
  kernels::Conv sizes_;
  Dtype given_;
  std::array<Tensor, 3> slots_;  // by Form; activations channels-last
};

/// Part of a training step that a form's time is charged to.
Part part_of(Form f) { return f == Form::y ? Part::gemm_forward : f == Form::x ? Part::gemm_input_grad : Part::gemm_weight_grad; }

/// The form that is neither.
Form third(Form a, Form b) { return static_cast<Form>(3 - static_cast<int>(a) - static_cast<int>(b)); }

/// Gives input i, the tensor `wanted`, its gradient.
void give(Backward& g, int i, Form wanted, Prepared& p, bool round) {
  const PartScope timed(part_of(wanted));
  const Dtype given = p.given(), leaf = g.input(i).dtype;
  const bool direct = leaf == given || (leaf == Dtype::f32 && is_16bit(given) && !round);
  if (wanted != Form::w) return g.set(i, p.activation(wanted, direct ? leaf : given));
  if (direct && leaf == p.wide()) {
    if (const auto s = g.sink(i); s.buffer.defined()) return p.weight(s.buffer, s.accumulate);
  }
  const Tensor dw = make_tensor(g.input(i).shape, p.wide());
  p.weight(dw, false);
  g.set(i, direct ? dw : dw.to(given));
}

void give_bias(Backward& g, int i, const Tensor& dy_last /*(N, ..., O)*/) {
  if (!g.wants(i)) return;
  const auto channels = dy_last.size(-1);
  const Dtype dtype = dy_last.dtype();
  if (dtype == Dtype::f64) return g.set(i, sum_to(dy_last, g.input(i)));
  const auto s = g.input(i).dtype == Dtype::f32 ? g.sink(i) : Backward::Sink{};
  const Tensor db = s.buffer.defined() ? s.buffer : make_tensor({channels}, Dtype::f32);
  kernels::sum_rows(cpu_queue(), dtype, data(dy_last), static_cast<float*>(mutable_data(db)), dy_last.numel() / channels, channels, s.accumulate);
  if (!s.buffer.defined()) g.set(i, db);
}

/// The form of operands of one dtype: `a` stands for the tensor `first`, `b` for the third one. bias: of x or y.
Tensor recorded(const Call& call, Form form, Form first, const Operand& a, const Operand& b, const Operand& bias) {
  const Form second = third(form, first);
  const Dtype dtype = a.value.dtype();
  Tensor result;
  {
    const PartScope timed(part_of(form));
    Prepared p(call, dtype);
    p.give(first, a.value);
    p.give(second, b.value);
    if (form == Form::w) {
      const Tensor wide = make_tensor(call.shape(form), p.wide());
      p.weight(wide, false);
      result = prepared(wide, dtype);
    } else {
      result = p.activation(form, dtype, bias.value);
    }
  }
  return record(call.op, result, {a, b, bias}, {a.value, b.value}, [=](Backward& g) {
    const Tensor a = g.saved(0), b = g.saved(1), dy = g.dy().to(dtype);
    if (g.create_graph()) {
      if (g.wants(0)) g.set(0, recorded(call, first, form, dy, b, {}));
      if (g.wants(1)) g.set(1, recorded(call, second, form, dy, a, {}));
      if (g.wants(2)) {
        std::vector<int> others;
        for (int d = 0; d < dy.dim(); ++d)
          if (d != 1) others.push_back(d);
        g.set(2, sum(dy, {.dims = others, .dtype = promote(dtype, g.input(2).dtype)}));
      }
      return;
    }
    Prepared p(call, dtype);
    p.give(form, dy);
    if (g.wants(0)) {
      p.give(second, b);
      give(g, 0, first, p, call.round);
    }
    if (g.wants(1)) {
      p.give(first, a);
      give(g, 1, second, p, call.round);
    }
    give_bias(g, 2, p.get(form));
  });
}

// ---- sizes -----------------------------------------------------------------------------------------

/// The same as the kernel's three dimensions, missing ones first.
std::array<std::int64_t, 3> each(const char* op, const char* field, const PerDim& given, int spatial, std::int64_t least) {
  std::array<std::int64_t, 3> out{least, least, least};
  const auto place = [&](const auto& v) { std::copy(v.begin(), v.end(), out.end() - spatial); };
  if (spatial == 1) place(per_dim<1>(op, field, given, least));
  else if (spatial == 2) place(per_dim<2>(op, field, given, least));
  else place(per_dim<3>(op, field, given, least));
  return out;
}

/// Checks what the caller gave and finds the sizes. x is the tensor that is given, whichever role it plays.
Call resolve(OpId op, bool transposed, int spatial, const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) {
  const char* n = name(op);
  constexpr std::array letters{"L", "H, W", "D, H, W"};
  const auto* sides = letters[static_cast<std::size_t>(spatial - 1)];
  if (x.dim() != spatial + 2) fail(n, fmt::format("x has shape {}, (N, C, {}) or (C, {}) wanted", to_string(x.shape()), sides, sides));
  if (w.dim() != spatial + 2)
    fail(n, fmt::format("w has shape {}, {} dimensions wanted: {}", to_string(w.shape()), spatial + 2,
                        transposed ? "(C, O / groups, kernel)" : "(O, C / groups, kernel)"));
  Call call{op, {}, spatial, context().policy.rounds_like_torch()};
  auto& s = call.sizes;
  s.groups = o.groups;
  if (s.groups < 1) fail(n, fmt::format(".groups = {} given, 1 or more wanted", s.groups));
  s.stride = each(n, "stride", o.stride, spatial, 1);
  s.dilation = each(n, "dilation", o.dilation, spatial, 1);
  s.padding = each(n, "padding", o.padding, spatial, 0);
  const auto extra = each(n, "output_padding", o.output_padding, spatial, 0);
  s.n = x.size(0);
  s.c = w.size(1) * s.groups;
  s.o = w.size(0);
  if (w.numel() == 0) fail(n, fmt::format("w has shape {}, sizes of 1 or more wanted", to_string(w.shape())));
  if (s.o % s.groups != 0)
    fail(n, fmt::format("w has shape {}, a first size that is a multiple of .groups = {} wanted", to_string(w.shape()), s.groups));
  if (const auto wanted = transposed ? s.o : s.c; x.size(1) != wanted)
    fail(n,
         fmt::format("x {} has {} channels, {} wanted: w is {} and .groups = {}", to_string(x.shape()), x.size(1), wanted, to_string(w.shape()),
                     s.groups),
         transposed ? "w is (C, O / groups, kernel)" : "w is (O, C / groups, kernel)");
  if (const auto wanted = transposed ? s.c : s.o; b.defined() && b.shape() != Shape{wanted})
    fail(n, fmt::format("b has shape {}, ({},) wanted", to_string(b.shape()), wanted));
  for (int d = 0; d < spatial; ++d) {
    const int last = 3 - spatial + d;  // sizes stand at the end
    const auto i = static_cast<std::size_t>(last);
    const auto given = x.size(2 + d), span = s.dilation[i] * ((s.kernel[i] = w.size(2 + d)) - 1) + 1;
    if (transposed) {
      if (extra[i] >= std::max(s.stride[i], s.dilation[i]))
        fail(n,
             fmt::format(".output_padding = {} given, less than the stride ({}) or the dilation ({}) wanted", extra[i], s.stride[i], s.dilation[i]));
      s.out[i] = given;
      s.in[i] = (given - 1) * s.stride[i] - 2 * s.padding[i] + span + extra[i];
      if (given < 1 || s.in[i] < 1)
        fail(n, fmt::format("x {} and w {} give a result of size {} in dimension {}", to_string(x.shape()), to_string(w.shape()), s.in[i], d),
             "less padding, or a larger input");
    } else {
      if (extra[i] != 0) fail(n, fmt::format(".output_padding = {} given, 0 wanted", extra[i]), "it is for transposed convolutions");
      s.in[i] = given;
      if (given + 2 * s.padding[i] < span)
        fail(n, fmt::format("the kernel covers {} elements of dimension {}, but the padded input has {}", span, d, given + 2 * s.padding[i]),
             "a smaller kernel or dilation, more padding, or a larger input");
      s.out[i] = (given + 2 * s.padding[i] - span) / s.stride[i] + 1;
    }
  }
  return call;
}

Tensor convolution(OpId op, bool transposed, int spatial, const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) {
  require_floating(name(op), x, "x");
  require_floating(name(op), w, "w");
  if (b.defined()) require_floating(name(op), b, "b");
  if (x.dim() == spatial + 1) return convolution(op, transposed, spatial, x.unsqueeze(0), w, b, o).squeeze(0);
  const Call call = resolve(op, transposed, spatial, x, w, b, o);
  const Operand a = operand(op, x), k = operand(op, w);
  if (a.value.dtype() != k.value.dtype())
    fail(name(op), fmt::format("x is {} and w is {}, equal dtypes wanted", name(a.value.dtype()), name(k.value.dtype())),
         "convert one with to(), or run inside amp::autocast, which casts both (f64 excepted)");
  Operand bias(b);
  if (b.defined()) {
    if (call.round) bias = operand(op, b);
    const Dtype wide = a.value.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
    bias = dense(Operand(b, operand(bias.value, wide).value));
  }
  return transposed ? recorded(call, Form::x, Form::y, a, k, bias) : recorded(call, Form::y, Form::x, a, k, bias);
}

}  // namespace

Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) { return convolution(OpId::conv1d, false, 1, x, w, b, o); }
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) { return convolution(OpId::conv2d, false, 2, x, w, b, o); }
Tensor conv3d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) { return convolution(OpId::conv3d, false, 3, x, w, b, o); }
Tensor conv_transpose1d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) {
  return convolution(OpId::conv_transpose1d, true, 1, x, w, b, o);
}
Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) {
  return convolution(OpId::conv_transpose2d, true, 2, x, w, b, o);
}
Tensor conv_transpose3d(const Tensor& x, const Tensor& w, const Tensor& b, const ConvOptions& o) {
  return convolution(OpId::conv_transpose3d, true, 3, x, w, b, o);
}

}  // namespace mezzo
