// recurrent.cpp - rnn, lstm, gru. Storage T; products accumulate in f32, and gates are computed of those sums before anything is rounded; the
// LSTM's cell is f32 from step to step; h is rounded once a step, the last c once.
//
// All steps' inputs are multiplied in one product; a step is one product with its state, added to that, and one pass over its rows. oneDNN 2.6's
// RNN primitive was left aside: it stores h and c of bf16 layers in bf16, wants weights (and, for training, a second copy of them and their
// gradients) in its own blocked layout, which the f32 leaf would be reordered to at every step, keeps activations in an opaque workspace that
// neither a second derivative nor inspection can read, and has no f16.
#include "ops/recurrent.h"

#include <cstring>

#include "ops/product.h"

namespace mezzo {
namespace {

using kernels::Cell;

struct Kind {
  OpId op;
  std::int64_t gates;  // G
  bool lstm = false, gru = false;
};
Kind kind_of(Cell cell) {
  switch (cell) {
    case Cell::lstm: return {.op = OpId::lstm, .gates = 4, .lstm = true};
    case Cell::gru: return {.op = OpId::gru, .gates = 3, .gru = true};
    default: return {.op = OpId::rnn, .gates = 1};
  }
}

struct Sizes {
  std::int64_t t, b, in, h, g;  // g = G h
};

/// Of sums: f32, or f64.
Dtype wide_of(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

/// Step s counts in the order of the recurrence, t in the order of x.
struct Order {
  std::int64_t steps;
  bool reverse;
  std::int64_t time(std::int64_t s) const { return reverse ? steps - 1 - s : s; }
};

const char* row(const Tensor& x, std::int64_t t) {  // x (T, B, columns), contiguous
  return static_cast<const char*>(data(x)) + t * x.size(1) * x.size(2) * static_cast<std::int64_t>(size_of(x.dtype()));
}
char* mutable_row(const Tensor& x, std::int64_t t) { return const_cast<char*>(row(x, t)); }
Tensor matrix(const Tensor& x) {  // (T B, columns) of a contiguous (T, B, columns)
  return make_view(x, {x.size(0) * x.size(1), x.size(2)}, contiguous_strides({x.size(0) * x.size(1), x.size(2)}), x.impl()->offset);
}
/// Each step's state before it, at the step's place: h and all of y but the last step's.
Tensor states_before(const Tensor& y, const Tensor& h, const Order& order) {
  Tensor states = make_tensor(y.shape(), y.dtype());
  const auto bytes = static_cast<std::size_t>(h.numel()) * size_of(h.dtype()), others = bytes * static_cast<std::size_t>(order.steps - 1);
  std::memcpy(mutable_row(states, order.time(0)), data(h), bytes);
  if (order.steps > 1) std::memcpy(mutable_row(states, order.reverse ? 0 : 1), row(y, order.reverse ? 1 : 0), others);
  return states;
}

/// c (m, n) = [c +] a op(b) [+ bias].
void multiply(std::int64_t m, std::int64_t n, std::int64_t k, Dtype dtype, Dtype wide, const void* a, const void* b, bool trans_b, void* c,
              bool accumulate, const Tensor& bias = {}) {
  kernels::Gemm p;
  p.m = m;
  p.n = n;
  p.k = k;
  p.a = p.b = dtype;
  p.c = wide;
  p.trans_b = trans_b;
  p.lda = k;
  p.ldb = trans_b ? k : n;
  p.ldc = n;
  p.beta = accumulate ? 1 : 0;
  if (bias.defined()) {
    p.bias = data(bias);
    p.bias_dtype = bias.dtype();
  }
  kernels::gemm(cpu_queue(), p, a, b, c);
}

/// Everything an op of this kind reads, in the dtypes it computes with.
struct Inputs {
  Operand x, h, c, w_ih, w_hh, b_ih, b_hh;
};
enum { kX, kH, kC, kWeightIh, kWeightHh, kBiasIh, kBiasHh, kInputs };

Tensor unrolled_step(const Kind& kind, Cell cell, const std::vector<Tensor>& v, const Tensor& x, const Tensor& h, Tensor& c) {
  const Tensor of_x = linear(x, v[kWeightIh], v[kBiasIh]), of_h = linear(h, v[kWeightHh], v[kBiasHh]);
  const auto n = h.size(1);
  const auto part = [n](const Tensor& t, std::int64_t k) { return t.narrow(1, k * n, n); };
  if (kind.gru) {
    const Tensor r = sigmoid(add(part(of_x, 0), part(of_h, 0))), z = sigmoid(add(part(of_x, 1), part(of_h, 1))),
                 fresh = tanh(add(part(of_x, 2), mul(r, part(of_h, 2))));
    return add(fresh, mul(z, sub(h, fresh)));
  }
  const Tensor sums = add(of_x, of_h);
  if (!kind.lstm) return cell == Cell::rnn_tanh ? tanh(sums) : relu(sums);
  c = add(mul(sigmoid(part(sums, 1)), c), mul(sigmoid(part(sums, 0)), tanh(part(sums, 2))));
  return mul(sigmoid(part(sums, 3)), tanh(c));
}

/// The layer in plain ops: what runs with create_graph.
std::vector<Tensor> unrolled(Cell cell, bool reverse, Dtype dtype, std::vector<Tensor> v) {
  const Kind kind = kind_of(cell);
  if (is_16bit(dtype))
    for (Tensor& t : v)
      if (t.defined()) t = t.to(Dtype::f32);
  const Order order{v[kX].size(0), reverse};
  std::vector<Tensor> y(static_cast<std::size_t>(order.steps));
  Tensor h = v[kH], c = v[kC];
  for (std::int64_t s = 0; s < order.steps; ++s) {
    const auto t = order.time(s);
    h = unrolled_step(kind, cell, v, v[kX].select(0, t), h, c);
    y[static_cast<std::size_t>(t)] = h;
  }
  std::vector<Tensor> out{stack(y).to(dtype)};
  if (kind.lstm) out.push_back(c.to(dtype));
  return out;
}

void check(const char* op, const Tensor& x, const Tensor& h, const Tensor& c, const RecurrentWeights& w, std::int64_t gates) {
  require_floating(op, x);
  require_floating(op, w.w_ih, "w_ih");
  require_floating(op, w.w_hh, "w_hh");
  if (x.dim() != 3 || x.size(0) < 1) fail(op, fmt::format("x has shape {}, (T, B, I) with a step or more wanted", to_string(x.shape())));
  const auto n = w.w_hh.dim() == 2 ? w.w_hh.size(1) : 0;
  if (w.w_hh.shape() != Shape{gates * n, n} || w.w_ih.shape() != Shape{gates * n, x.size(2)})
    fail(op, fmt::format("w_ih {} and w_hh {} given for x {}, ({} H, I) and ({} H, H) wanted", to_string(w.w_ih.shape()), to_string(w.w_hh.shape()),
                         to_string(x.shape()), gates, gates));
  for (const Tensor* state : {&h, &c})
    if (state->defined() && state->shape() != Shape{x.size(1), n})
      fail(op, fmt::format("a state of shape {} given, ({}, {}) wanted", to_string(state->shape()), x.size(1), n));
  if (w.b_ih.defined() != w.b_hh.defined()) fail(op, "one bias given, both or neither wanted");
  for (const Tensor* bias : {&w.b_ih, &w.b_hh})
    if (bias->defined() && bias->shape() != Shape{gates * n})
      fail(op, fmt::format("a bias of shape {} given, ({},) wanted", to_string(bias->shape()), gates * n));
}

/// The node's backward. Saved: x, h, c, w_ih, w_hh, b_ih, b_hh, y, the gates (none of rnn) and the cells (T, B, H; lstm).
struct RecurrentBackward {
  Cell cell;
  bool reverse, round;

  void operator()(Backward& g) const {
    const Kind kind = kind_of(cell);
    const Tensor x = g.saved(kX), h0 = g.saved(kH), c0 = g.saved(kC), w_ih = g.saved(kWeightIh), w_hh = g.saved(kWeightHh);
    if (g.create_graph()) {
      const std::vector<Tensor> values{x, h0, c0, w_ih, w_hh, g.saved(kBiasIh), g.saved(kBiasHh)};
      return g.through_all(
          values, [cell = cell, reverse = reverse, dtype = x.dtype()](const std::vector<Tensor>& v) { return unrolled(cell, reverse, dtype, v); });
    }
    const Tensor y = g.saved(kInputs), cells = g.saved(kInputs + 2);
    Tensor gates = g.take_saved(kInputs + 1);
    const Dtype dtype = x.dtype(), wide = wide_of(dtype);
    const Sizes n{x.size(0), x.size(1), x.size(2), y.size(2), kind.gates * y.size(2)};
    const Order order{n.t, reverse};
    // The LSTM's gates give way to the gradients of their sums where no one else sees them.
    const Tensor dsums = kind.lstm && exclusively_owned(gates) ? gates : make_tensor({n.t, n.b, n.g}, dtype);
    const Tensor dstate = kind.gru ? make_tensor({n.t, n.b, n.g}, dtype) : dsums;
    const Tensor dy = g.dy(0).defined() ? dense(g.dy(0)) : Tensor();
    const auto started = [&](const Tensor& from) {
      Tensor d = make_tensor({n.b, n.h}, wide);
      if (from.defined()) copy_elements(d, from);
      else kernels::fill(cpu_queue(), wide, 0, mutable_data(d), strided({&d}));
      return d;
    };
    const Tensor dh = started({}), dc = kind.lstm ? started(g.dy(1)) : Tensor();
    for (std::int64_t s = n.t; s-- > 0;) {
      const auto t = order.time(s), before = order.time(s - 1);
      const auto at = [t](const Tensor& v) -> const void* { return v.defined() ? row(v, t) : nullptr; };
      kernels::cell_backward(cpu_queue(), cell, dtype, at(gates), at(y), s > 0 ? row(y, before) : data(h0),
                             !kind.lstm ? nullptr
                             : s > 0    ? row(cells, before)
                                        : data(c0),
                             at(cells), at(dy), mutable_data(dh), kind.lstm ? mutable_data(dc) : nullptr, mutable_row(dsums, t),
                             kind.gru ? mutable_row(dstate, t) : nullptr, n.b, n.h);
      if (s == 0 && !g.wants(kH)) break;
      const PartScope timed(Part::gemm_input_grad);
      multiply(n.b, n.h, n.g, dtype, wide, row(dstate, t), data(w_hh), false, mutable_data(dh), kind.gru);
    }
    g.set(kH, dh);
    if (kind.lstm) g.set(kC, dc);

    const Tensor d = matrix(dsums);
    if (g.wants(kX)) {
      const PartScope timed(Part::gemm_input_grad);
      g.set(kX, product(d, w_ih, g.input(kX).dtype == Dtype::f32 && !round ? Dtype::f32 : dtype).reshape(x.shape()));
    }
    if (g.wants(kWeightIh)) give_product(g, kWeightIh, d.transpose(0, 1), matrix(x), round);
    if (g.wants(kWeightHh)) give_product(g, kWeightHh, matrix(dstate).transpose(0, 1), matrix(states_before(y, h0, order)), round);
    give_bias(g, kBiasIh, d);
    give_bias(g, kBiasHh, matrix(dstate));
  }
};

/// What a layer reads, cast as its op's class says.
Inputs read(const Kind& kind, const Sizes& n, const Tensor& x, const Tensor& h, const Tensor& c, const RecurrentWeights& w, bool round) {
  const char* op = name(kind.op);
  Inputs in;
  in.x = dense(operand(kind.op, x));
  const Dtype dtype = in.x.value.dtype(), wide = wide_of(dtype);
  const auto state = [&](const Tensor& t, Dtype to) {
    if (!t.defined()) return Operand({}, zeros({n.b, n.h}, {.dtype = to}));
    require_floating(op, t, "a state");
    return Operand(t, dense(operand(operand(kind.op, t).value, to).value));
  };
  in.h = h.defined() ? dense(operand(kind.op, h)) : state({}, dtype);
  if (kind.lstm) in.c = state(c, wide);
  in.w_ih = dense(operand(kind.op, w.w_ih));
  in.w_hh = dense(operand(kind.op, w.w_hh));
  for (const Operand* o : {&in.h, &in.w_ih, &in.w_hh})
    if (o->value.dtype() != dtype)
      fail(op, fmt::format("dtypes {} and {} given, equal ones wanted", name(dtype), name(o->value.dtype())),
           "convert with to(), or run inside amp::autocast");
  const auto bias = [&](const Tensor& b) -> Operand {  // added in f32, unrounded; torch's policy rounds it first
    if (!b.defined()) return {};
    require_floating(op, b, "a bias");
    return Operand(b, dense(operand(round ? operand(kind.op, b).value : b, wide).value));
  };
  in.b_ih = bias(w.b_ih);
  in.b_hh = bias(w.b_hh);
  return in;
}

/// What the steps leave: y (T, B, H), the gates (T, B, 4 H; with grad, none of rnn) and the LSTM's cells (of all steps with grad, else of the last).
struct Steps {
  Tensor y, gates, cells;
};
Steps run(Cell cell, const Kind& kind, const Sizes& n, const Order& order, const Inputs& in, bool grad) {
  const Dtype dtype = in.x.value.dtype(), wide = wide_of(dtype);
  const Tensor y = make_tensor({n.t, n.b, n.h}, dtype);
  const Tensor gates = grad && kind.op != OpId::rnn ? make_tensor({n.t, n.b, 4 * n.h}, dtype) : Tensor();
  const Tensor cells = kind.lstm ? make_tensor({grad ? n.t : 1, n.b, n.h}, wide) : Tensor();
  const bool in_place = kind.lstm && grad && dtype == wide;  // the sums become the gates
  const auto w_size = static_cast<std::int64_t>(size_of(wide));
  const Block sums_block = in_place ? Block() : cpu_queue().scratch(static_cast<std::size_t>(n.t * n.b * n.g * w_size));
  char* const sums = in_place ? static_cast<char*>(mutable_data(gates)) : sums_block.as<char>();
  const Block state_sums = kind.gru ? cpu_queue().scratch(static_cast<std::size_t>(n.b * n.g * w_size)) : Block();
  {
    const PartScope timed(Part::gemm_forward);
    Tensor b = in.b_ih.value;
    if (b.defined() && !kind.gru) {  // both meet in one sum
      const GradMode off(false);
      b = add(b, in.b_hh.value);
    }
    multiply(n.t * n.b, n.g, n.in, dtype, wide, data(in.x.value), data(in.w_ih.value), true, sums, false, b);
  }
  for (std::int64_t s = 0; s < n.t; ++s) {
    const auto t = order.time(s), before = order.time(s - 1);
    char* const now = sums + t * n.b * n.g * w_size;
    const void* h_before = s > 0 ? row(y, before) : data(in.h.value);
    {
      const PartScope timed(Part::gemm_forward);
      multiply(n.b, n.g, n.h, dtype, wide, h_before, data(in.w_hh.value), true, kind.gru ? state_sums.as<void>() : now, !kind.gru,
               kind.gru ? in.b_hh.value : Tensor());
    }
    const PartScope timed(Part::activation);
    const void* c_before = !kind.lstm ? nullptr : s == 0 ? data(in.c.value) : row(cells, grad ? before : 0);
    kernels::cell(cpu_queue(), cell, dtype, now, kind.gru ? state_sums.as<void>() : nullptr, h_before, c_before, mutable_row(y, t),
                  kind.lstm ? mutable_row(cells, grad ? t : 0) : nullptr, gates.defined() ? mutable_row(gates, t) : nullptr, n.b, n.h);
  }
  return {y, gates, cells};
}

}  // namespace

RecurrentSteps recurrent(Cell cell, const Tensor& x, const Tensor& h, const Tensor& c, const RecurrentWeights& w, bool reverse) {
  const Kind kind = kind_of(cell);
  check(name(kind.op), x, h, c, w, kind.gates);
  const bool round = context().policy.rounds_like_torch();
  const Sizes n{x.size(0), x.size(1), x.size(2), w.w_hh.size(1), w.w_hh.size(0)};
  const Order order{n.t, reverse};
  const Inputs in = read(kind, n, x, h, c, w, round);
  const bool grad = should_record({in.x, in.h, in.c, in.w_ih, in.w_hh, in.b_ih, in.b_hh});
  const Steps steps = run(cell, kind, n, order, in, grad);
  RecurrentSteps out{steps.y, {}};
  if (kind.lstm) {
    out.c = make_tensor({n.b, n.h}, steps.y.dtype());
    kernels::convert(cpu_queue(), steps.cells.dtype(), out.c.dtype(), row(steps.cells, grad ? order.time(n.t - 1) : 0), mutable_data(out.c),
                     n.b * n.h);
  }
  if (!grad) return out;
  auto* node = new autograd::detail_node::FunctionNode<RecurrentBackward>(RecurrentBackward{cell, reverse, round});
  std::array<Tensor, 2> outputs{out.y, out.c};
  const std::array<Operand, kInputs> inputs{in.x, in.h, in.c, in.w_ih, in.w_hh, in.b_ih, in.b_hh};
  const std::array<Tensor, kInputs + 3> saved{in.x.value,    in.h.value,    in.c.value, in.w_ih.value, in.w_hh.value,
                                              in.b_ih.value, in.b_hh.value, steps.y,    steps.gates,   steps.cells};
  autograd::connect(*node, kind.op, {outputs.data(), kind.lstm ? 2u : 1u}, inputs, saved);
  return out;
}

}  // namespace mezzo
