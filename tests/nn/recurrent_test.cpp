// recurrent_test.cpp - Rnn, Lstm, Gru and their cells: PyTorch's values, one step at a time, autocast, dropout, bad input.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include <mezzo/mezzo.h>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

using Json = nlohmann::json;

std::shared_ptr<nn::Recurrent> make(const std::string& name, const Json& o) {
  const nn::LstmOptions options{.in = o["in"],
                                .hidden = o["hidden"],
                                .layers = o["layers"],
                                .bias = o.value("bias", true),
                                .batch_first = o.value("batch_first", false),
                                .bidirectional = o.value("bidirectional", false)};
  if (name.rfind("lstm", 0) == 0) return std::make_shared<nn::Lstm>(options);
  if (name.rfind("gru", 0) == 0) return std::make_shared<nn::Gru>(options);
  return std::make_shared<nn::Rnn>(nn::RnnOptions{.in = options.in,
                                                  .hidden = options.hidden,
                                                  .layers = options.layers,
                                                  .batch_first = options.batch_first,
                                                  .bidirectional = options.bidirectional,
                                                  .relu = o.value("relu", false)});
}

void check_near(const Tensor& got, const Tensor& want) {
  REQUIRE(got.defined());
  REQUIRE(got.shape() == want.shape());
  const Tensor a = got.detach().contiguous(), b = want.detach().contiguous();
  double worst = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(a.numel()); ++i) worst = std::max(worst, std::fabs(a.data<double>()[i] - b.data<double>()[i]));
  CHECK(worst < 1e-12);
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.shape() == b.shape() && sum(ne(a.detach(), b.detach())).item() == 0;
}

Tensor random(Shape shape, std::uint64_t seed) {
  Generator g(seed);
  return randn(std::move(shape), g);
}

}  // namespace

TEST_CASE("recurrent layers give PyTorch's outputs, last states and gradients") {
  const io::SafetensorsFile file("tests/golden/recurrent.safetensors");
  std::map<std::string, Tensor> golden;
  for (auto& [name, t] : load("tests/golden/recurrent.safetensors")) golden[name] = t;
  const auto layers = Json::parse(file.metadata().at("layers"));
  for (const auto& item : layers.items()) {
    const std::string name = item.key();
    CAPTURE(name);
    const auto find = [&](const std::string& part) {
      const auto it = golden.find(name + "." + part);
      return it == golden.end() ? Tensor() : it->second;
    };
    const auto layer = make(name, item.value());
    layer->to(f64);
    StateDict weights;
    for (const auto& p : layer->named_parameters()) weights.emplace_back(p.first, find("weight." + p.first));
    layer->load_state_dict(weights);
    Tensor x = find("x"), h = find("h"), c = find("c");
    x.requires_grad_();
    h.requires_grad_();
    if (c.defined()) c.requires_grad_();
    const auto out = layer->forward(x, {h, c});
    check_near(out.y, find("y"));
    check_near(out.state.h, find("last_h"));
    Tensor loss = add(sum(mul(out.y, find("dy"))), sum(out.state.h));
    if (c.defined()) {
      check_near(out.state.c, find("last_c"));
      loss = add(loss, sum(out.state.c));
    }
    loss.backward();
    check_near(x.grad(), find("grad.x"));
    check_near(h.grad(), find("grad.h"));
    if (c.defined()) check_near(c.grad(), find("grad.c"));
    for (const auto& p : layer->named_parameters()) check_near(p.second.grad(), find("grad.weight." + p.first));
  }
}

TEST_CASE("a cell stepped by hand is the layer, and batch_first and unbatched inputs are the same numbers") {
  manual_seed(1);
  nn::Lstm lstm({.in = 3, .hidden = 5});
  nn::LstmCell cell({.in = 3, .hidden = 5});
  StateDict renamed;
  for (const auto& [name, t] : lstm.state_dict()) renamed.emplace_back(name.substr(0, name.size() - 3), t);  // without _l0
  cell.load_state_dict(renamed);
  const Tensor x = random({4, 2, 3}, 2);
  const auto out = lstm(x, {});
  nn::RecurrentState state;
  for (std::int64_t t = 0; t < 4; ++t) {
    state = cell.forward(x.select(0, t), state);
    CHECK(norm(sub(state.h, out.y.select(0, t))).item() < 1e-6);
  }
  CHECK(norm(sub(state.c, out.state.c.select(0, 0))).item() < 1e-6);

  nn::Lstm first({.in = 3, .hidden = 5, .batch_first = true});
  first.load_state_dict(lstm.state_dict());
  CHECK(same_bits(first.forward(x.transpose(0, 1)).transpose(0, 1), out.y));
  const auto alone = lstm(x.select(1, 0), {});
  CHECK(alone.y.shape() == Shape{4, 5});
  CHECK(alone.state.c.shape() == Shape{1, 5});
  CHECK(norm(sub(alone.y, out.y.select(1, 0))).item() < 1e-6);

  nn::GruCell gru({.in = 3, .hidden = 4});
  nn::RnnCell rnn({.in = 3, .hidden = 4, .relu = true});
  CHECK(gru.forward(x.select(0, 0)).shape() == Shape{2, 4});
  CHECK(rnn.forward(x.select(0, 0), gru.forward(x.select(0, 0))).shape() == Shape{2, 4});
}

TEST_CASE("autocast: a recurrent layer gives the bits of one with 16-bit weights and inputs, forward and backward [test_autocast_rnn]") {
  for (const Dtype dtype : {f16, bf16})
    for (const bool torchs : {false, true})
      for (const auto* kind : {"lstm", "gru", "rnn", "lstm without biases", "gru, batch first"}) {
        const std::string text = kind;
        const bool biases = text.find("without") == text.npos, batch_first = text.find("batch first") != text.npos;
        CAPTURE(kind);
        CAPTURE(dtype);
        CAPTURE(torchs);
        manual_seed(3);
        const bool both_ways = text.rfind("gru", 0) == 0, has_cell = text.rfind("lstm", 0) == 0;
        const Json o{{"in", 16}, {"hidden", 24}, {"layers", 2}, {"bidirectional", both_ways}, {"bias", biases}, {"batch_first", batch_first}};
        const std::int64_t places = both_ways ? 4 : 2;
        const auto layer = make(kind, o), manual = make(kind, o);
        manual->load_state_dict(layer->state_dict());
        // mezzo adds biases unrounded in f32: there they stay f32; torch rounds them first.
        if (!torchs && biases) manual->keep("bias", f32);
        manual->to(dtype);
        const Tensor x = random(batch_first ? Shape{3, 5, 16} : Shape{5, 3, 16}, 4), h = random({places, 3, 24}, 5),
                     c = has_cell ? random({places, 3, 24}, 6) : Tensor();
        Tensor a = x.clone(), b = x.to(dtype);
        a.requires_grad_();
        b.requires_grad_();
        const amp::AutocastOptions options{.policy = torchs ? amp::Policy::torch() : amp::Policy::mezzo()};
        const auto got = amp::autocast(dtype, options, [&] { return layer->forward(a, {h, c}); });
        const auto want = manual->forward(b, {h.to(dtype), c.defined() ? c.to(dtype) : c});
        CHECK(got.y.dtype() == dtype);
        CHECK(same_bits(got.y, want.y));
        CHECK(same_bits(got.state.h, want.state.h));
        if (c.defined()) CHECK(same_bits(got.state.c, want.state.c));
        const Tensor dy = random(got.y.shape(), 7).to(dtype);
        got.y.backward({.gradient = dy});
        want.y.backward({.gradient = dy});
        CHECK(a.grad().dtype() == f32);                                  // and closer to the truth: not rounded on the way to an f32 leaf
        if (!both_ways) CHECK(same_bits(a.grad().to(dtype), b.grad()));  // else a sum of two in f32 against one of two in 16 bits
        const auto mine = layer->named_parameters(), theirs = manual->named_parameters();
        for (std::size_t i = 0; i < mine.size(); ++i) {
          CAPTURE(mine[i].first);
          CHECK(mine[i].second.grad().dtype() == f32);
          CHECK(same_bits(mine[i].second.grad().to(theirs[i].second.dtype()), theirs[i].second.grad()));
        }
      }
}

TEST_CASE("recurrent layers: dropout between layers in training alone, no graph under NoGrad, parameters' names and exemption") {
  manual_seed(8);
  nn::Gru gru({.in = 4, .hidden = 8, .layers = 2, .dropout = 0.5});
  const Tensor x = random({3, 2, 4}, 9);
  CHECK_FALSE(same_bits(gru(x), gru(x)));
  gru.eval();
  CHECK(same_bits(gru(x), gru(x)));
  const autograd::NoGrad off;
  CHECK_FALSE(gru(x).requires_grad());
  CHECK(gru.named_parameters()[5].first == "weight_hh_l1");
}

TEST_CASE("recurrent layers: bad input is an Error that says what was wanted") {
  CHECK_ERROR(nn::Lstm({.in = 0, .hidden = 4}), "[Lstm]", ".in = 0 given");
  CHECK_ERROR(nn::Gru({.in = 1, .hidden = 4, .layers = 0}), "[Gru]", ".layers = 0 given");
  CHECK_ERROR(nn::Rnn({.in = 1, .hidden = 4, .dropout = 1}), "[Rnn]", ".dropout = 1 given");
  nn::Lstm lstm({.in = 3, .hidden = 4, .bidirectional = true});
  CHECK_ERROR(lstm(zeros({5, 2, 4})), "[Lstm]", "(T, B, 3) wanted");
  CHECK_ERROR(lstm(zeros({3})), "[Lstm]", "(T, B, 3) wanted");
  CHECK_ERROR(lstm(zeros({0, 2, 3})), "[lstm]", "a step or more wanted");
  CHECK_ERROR(lstm(zeros({5, 2, 3}), {zeros({1, 2, 4}), {}}), "[Lstm]", "(2, 2, 4) wanted", "layers times directions");
  CHECK_ERROR(lstm(zeros({5, 2, 3}, {.dtype = bf16})), "[lstm]", "bf16 and f32 given", "amp::autocast");
  nn::Gru gru({.in = 3, .hidden = 4});
  CHECK_ERROR(gru(zeros({5, 2, 3}), {{}, zeros({1, 2, 4})}), "[Gru]", "an LSTM's");
  nn::LstmCell cell({.in = 3, .hidden = 4});
  CHECK_ERROR(cell(zeros({2, 4})), "[LstmCell]", "(B, 3) wanted");
  CHECK_ERROR(cell.forward(zeros({2, 3}), {zeros({3, 4}), {}}), "[lstm]", "a state of shape", "(2, 4) wanted");
}
