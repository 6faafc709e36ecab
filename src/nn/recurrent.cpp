// recurrent.cpp - Rnn, Lstm, Gru and their cells: layers and directions around one op.
#include "ops/recurrent.h"

#include <cmath>

#include <mezzo/nn.h>

#include "core/fail.h"
#include "nn/init.h"
#include "tensor/impl.h"

namespace mezzo::nn {
namespace {

Tensor squeezed(const Tensor& t, int dim) { return t.defined() ? t.squeeze(dim) : t; }
Tensor selected(const Tensor& t, std::int64_t i) { return t.defined() ? t.select(0, i) : t; }

/// One step of a cell.
RecurrentState step(const char* what, kernels::Cell cell, const Tensor& x, const RecurrentState& before, const RecurrentWeights& w) {
  require_defined(what, x, "x");
  if (x.dim() != 2 || x.size(1) != w.w_ih.size(1)) fail(what, fmt::format("x has shape {}, (B, {}) wanted", to_string(x.shape()), w.w_ih.size(1)));
  const RecurrentSteps out = recurrent(cell, x.unsqueeze(0), before.h, before.c, w);
  return {out.y.squeeze(0), out.c};
}

}  // namespace

// ---- layers --------------------------------------------------------------------------------------

Recurrent::Recurrent(Kind kind, const char* name, const LstmOptions& o) : kind_(kind), name_(name), options_(o) {
  require_size(name, "in", o.in);
  require_size(name, "hidden", o.hidden);
  require_size(name, "layers", o.layers);
  if (!(o.dropout >= 0 && o.dropout < 1)) fail(name, fmt::format(".dropout = {} given, 0 <= dropout < 1 wanted", o.dropout));
  const double bound = 1 / std::sqrt(static_cast<double>(o.hidden));
  const std::int64_t gates = (kind == Kind::lstm ? 4 : kind == Kind::gru ? 3 : 1) * o.hidden, ways = o.bidirectional ? 2 : 1;
  for (int layer = 0; layer < o.layers; ++layer)
    for (std::int64_t way = 0; way < ways; ++way) {
      const auto parameter = [&](const char* part, const Shape& shape) {
        return register_parameter(fmt::format("{}_l{}{}", part, layer, way ? "_reverse" : ""), uniform(shape, bound));
      };
      Direction d;
      d.w_ih = parameter("weight_ih", {gates, layer == 0 ? o.in : ways * o.hidden});
      d.w_hh = parameter("weight_hh", {gates, o.hidden});
      if (o.bias) {
        d.b_ih = parameter("bias_ih", {gates});
        d.b_hh = parameter("bias_hh", {gates});
        mark_exempt(d.b_ih);
        mark_exempt(d.b_hh);
      }
      directions_.push_back(d);
    }
}

Tensor Recurrent::forward(const Tensor& x) { return forward(x, {}).y; }

RecurrentResult Recurrent::forward(const Tensor& x, const RecurrentState& before) {
  require_defined(name_, x, "x");
  const bool batched = x.dim() == 3;
  if ((!batched && x.dim() != 2) || x.size(-1) != options_.in)
    fail(name_, fmt::format("x has shape {}, ({}, {}) wanted", to_string(x.shape()), options_.batch_first ? "B, T" : "T, B", options_.in));
  if (before.c.defined() && kind_ != Kind::lstm) fail(name_, "a state with a c given, which is an LSTM's");
  const auto places = static_cast<std::int64_t>(directions_.size());
  for (const Tensor* s : {&before.h, &before.c}) {
    if (!s->defined()) continue;
    const Shape wanted = batched ? Shape{places, x.size(options_.batch_first ? 0 : 1), options_.hidden} : Shape{places, options_.hidden};
    if (s->shape() != wanted)
      fail(name_, fmt::format("the state's {} has shape {}, {} wanted", s == &before.h ? "h" : "c", to_string(s->shape()), to_string(wanted)),
           "layers times directions, then the batch, then hidden");
  }
  const auto ordered = [&](const Tensor& t) { return !batched ? t : options_.batch_first ? t.transpose(0, 1) : t; };
  const auto state = [&](const Tensor& t, std::int64_t i) { return batched || !t.defined() ? selected(t, i) : selected(t, i).unsqueeze(0); };
  Tensor y = batched ? ordered(x) : x.unsqueeze(1);
  std::vector<Tensor> h, c;
  const int ways = options_.bidirectional ? 2 : 1;
  for (int layer = 0; layer < options_.layers; ++layer) {
    if (layer > 0) y = dropout(y, options_.dropout, is_training());
    std::vector<Tensor> outputs;
    for (int way = 0; way < ways; ++way) {
      const int i = layer * ways + way;
      const Direction& d = directions_[static_cast<std::size_t>(i)];
      const RecurrentSteps out =
          recurrent(static_cast<kernels::Cell>(kind_), y, state(before.h, i), state(before.c, i), {d.w_ih, d.w_hh, d.b_ih, d.b_hh}, way == 1);
      outputs.push_back(out.y);
      h.push_back(out.y.select(0, way == 1 ? 0 : out.y.size(0) - 1));
      if (out.c.defined()) c.push_back(out.c);
    }
    y = ways == 1 ? outputs[0] : cat(outputs, -1);
  }
  RecurrentResult result{batched ? ordered(y) : y.squeeze(1), {stack(h), c.empty() ? Tensor() : stack(c)}};
  if (!batched) result.state = {result.state.h.squeeze(1), squeezed(result.state.c, 1)};
  return result;
}

Rnn::Rnn(RnnOptions o)
    : Recurrent(o.relu ? Kind::rnn_relu : Kind::rnn_tanh, "Rnn",
                {.in = o.in,
                 .hidden = o.hidden,
                 .layers = o.layers,
                 .bias = o.bias,
                 .batch_first = o.batch_first,
                 .bidirectional = o.bidirectional,
                 .dropout = o.dropout}) {}
Lstm::Lstm(LstmOptions o) : Recurrent(Kind::lstm, "Lstm", o) {}
Gru::Gru(GruOptions o) : Recurrent(Kind::gru, "Gru", o) {}

// ---- cells ---------------------------------------------------------------------------------------

namespace {
struct CellParameters {
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};
/// `add(name, values)` registers one.
template <class Add> CellParameters cell_parameters(const char* what, std::int64_t gates, const LstmCellOptions& o, Add add) {
  require_size(what, "in", o.in);
  require_size(what, "hidden", o.hidden);
  const double bound = 1 / std::sqrt(static_cast<double>(o.hidden));
  CellParameters p;
  p.weight_ih = add("weight_ih", uniform({gates * o.hidden, o.in}, bound));
  p.weight_hh = add("weight_hh", uniform({gates * o.hidden, o.hidden}, bound));
  if (!o.bias) return p;
  p.bias_ih = add("bias_ih", uniform({gates * o.hidden}, bound));
  p.bias_hh = add("bias_hh", uniform({gates * o.hidden}, bound));
  return p;
}
}  // namespace

LstmCell::LstmCell(LstmCellOptions o) {
  const auto p = cell_parameters("LstmCell", 4, o, [&](const char* n, const Tensor& t) { return register_parameter(n, t); });
  weight_ih = p.weight_ih, weight_hh = p.weight_hh, bias_ih = p.bias_ih, bias_hh = p.bias_hh;
  if (o.bias) mark_exempt(bias_ih), mark_exempt(bias_hh);
}
Tensor LstmCell::forward(const Tensor& x) { return forward(x, {}).h; }
RecurrentState LstmCell::forward(const Tensor& x, const RecurrentState& before) {
  return step("LstmCell", kernels::Cell::lstm, x, before, {weight_ih, weight_hh, bias_ih, bias_hh});
}

GruCell::GruCell(GruCellOptions o) {
  const auto p = cell_parameters("GruCell", 3, o, [&](const char* n, const Tensor& t) { return register_parameter(n, t); });
  weight_ih = p.weight_ih, weight_hh = p.weight_hh, bias_ih = p.bias_ih, bias_hh = p.bias_hh;
  if (o.bias) mark_exempt(bias_ih), mark_exempt(bias_hh);
}
Tensor GruCell::forward(const Tensor& x) { return forward(x, Tensor()); }
Tensor GruCell::forward(const Tensor& x, const Tensor& h) {
  return step("GruCell", kernels::Cell::gru, x, {h, {}}, {weight_ih, weight_hh, bias_ih, bias_hh}).h;
}

RnnCell::RnnCell(RnnCellOptions o) : relu_(o.relu) {
  const auto p = cell_parameters("RnnCell", 1, {.in = o.in, .hidden = o.hidden, .bias = o.bias},
                                 [&](const char* n, const Tensor& t) { return register_parameter(n, t); });
  weight_ih = p.weight_ih, weight_hh = p.weight_hh, bias_ih = p.bias_ih, bias_hh = p.bias_hh;
  if (o.bias) mark_exempt(bias_ih), mark_exempt(bias_hh);
}
Tensor RnnCell::forward(const Tensor& x) { return forward(x, Tensor()); }
Tensor RnnCell::forward(const Tensor& x, const Tensor& h) {
  return step("RnnCell", relu_ ? kernels::Cell::rnn_relu : kernels::Cell::rnn_tanh, x, {h, {}}, {weight_ih, weight_hh, bias_ih, bias_hh}).h;
}

}  // namespace mezzo::nn
