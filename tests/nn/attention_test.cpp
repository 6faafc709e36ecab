// attention_test.cpp - nn::Attention: PyTorch's values, grouped heads, precision, dropout, bad input.
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include <mezzo/mezzo.h>
#include <nlohmann/json.hpp>

#include "grad/differences.h"
#include "io/safetensors.h"
#include "optim/helpers.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

Tensor random(Shape shape, std::uint64_t seed, Dtype dtype = f32) {
  Generator g(seed);
  return randn(std::move(shape), g, {.dtype = dtype});
}

/// ||got - want|| / ||want||; of a zero `want` ||got - want||.
double distance(const Tensor& got, const Tensor& want) {
  REQUIRE(got.defined());
  REQUIRE(got.shape() == want.shape());
  const Tensor a = got.detach().to(f64), b = want.detach().to(f64);
  const double whole = norm(b).item();
  return norm(sub(a, b)).item() / (whole > 0 ? whole : 1);
}

bool same_bits(const Tensor& a, const Tensor& b) { return a.dtype() == b.dtype() && a.shape() == b.shape() && bits(a) == bits(b); }

/// One module of tests/golden/attention.safetensors and what PyTorch computed with it, in f64.
struct Golden {
  nn::AttentionOptions options;
  std::map<std::string, Tensor> tensors;
  Tensor find(const std::string& name) const {
    const auto it = tensors.find(name);
    return it == tensors.end() ? Tensor() : it->second;
  }
  /// The input in `dtype`, as a leaf that requires grad; undefined where the case has none.
  Tensor leaf(const std::string& name, Dtype dtype) const {
    const Tensor t = find(name);
    return t.defined() ? t.to(dtype).clone().requires_grad_() : t;
  }
  std::shared_ptr<nn::Attention> module(Dtype dtype) const {
    const auto m = std::make_shared<nn::Attention>(options);
    m->to(dtype);
    StateDict weights;
    for (const auto& p : m->named_parameters()) weights.emplace_back(p.first, find("weight." + p.first));
    m->load_state_dict(weights);
    return m;
  }
  double greatest_score() const {
    const auto m = module(f64);
    const Tensor query = find("query"), key = find("key").defined() ? find("key") : query;
    const std::int64_t heads = options.heads, d = options.dim / heads;
    const auto split = [&](const Tensor& y) { return y.reshape({y.size(0), y.size(1), heads, d}).transpose(1, 2); };
    const Tensor scores = matmul(split(m->q_proj->forward(query)), split(m->k_proj->forward(key)).transpose(2, 3));
    return amax(abs(scores)).item() / std::sqrt(static_cast<double>(d));
  }
};

std::map<std::string, Golden> golden_modules() {
  const std::string path = "tests/golden/attention.safetensors";
  std::map<std::string, Golden> out;
  const auto cases = nlohmann::json::parse(io::SafetensorsFile(path).metadata().at("cases"));
  for (const auto& [name, o] : cases.items())
    out[name].options = {.dim = o.at("dim"), .heads = o.at("heads"), .bias = o.at("bias"), .causal = o.at("causal")};
  for (const auto& [name, t] : load(path)) out.at(name.substr(0, name.find('.'))).tensors[name.substr(name.find('.') + 1)] = t;
  return out;
}

/// Runs the module on the case's inputs, backward too, and gives the greatest distance from PyTorch's values and gradients.
double farthest(const Golden& g, nn::Attention& m, Dtype storage, Dtype result) {
  const Tensor query = g.leaf("query", storage), key = g.leaf("key", storage), value = g.leaf("value", storage), mask = g.find("mask");
  const Tensor y = key.defined() ? m(query, key, value, mask) : mask.defined() ? m(query, query, query, mask) : m(query);
  CHECK(y.dtype() == result);
  y.backward({.gradient = g.find("dy").to(result)});
  double worst = distance(y, g.find("y"));
  const auto gradient = [&](const std::string& name, const Tensor& leaf) {
    CAPTURE(name);
    CHECK(leaf.grad().dtype() == leaf.dtype());
    // Probabilities stay when all scores of a row move alike, so the key's bias has a gradient of zero: what there is of it is rounding, which is
    // measured against the query's.
    const bool zero = name == "weight.k_proj.bias";
    const double d =
        zero ? norm(leaf.grad().to(f64)).item() / norm(g.find("grad.weight.q_proj.bias")).item() : distance(leaf.grad(), g.find("grad." + name));
    worst = std::max(worst, d);
  };
  gradient("query", query);
  if (key.defined()) gradient("key", key), gradient("value", value);
  for (const auto& [name, p] : m.named_parameters()) gradient("weight." + name, p);
  return worst;
}

}  // namespace

TEST_CASE("attention gives PyTorch's outputs and gradients: in f64 to its rounding, in f32 and under autocast to that format's") {
  for (const auto& entry : golden_modules()) {
    CAPTURE(entry.first);
    const Golden& golden = entry.second;
    CHECK(farthest(golden, *golden.module(f64), f64, f64) < 1e-13);
    // About 8 results follow one another forward and back, each off by a rounding or so. In f32 the scores round too, three times on their way: what
    // a score of s is off by, 1.5 epsilon s, is the relative error of its probability, which the softmax's gradient takes twice.
    const double roundings = 8;
    CHECK(farthest(golden, *golden.module(f32), f32, f32) < (roundings + 3 * golden.greatest_score()) * format_info(f32).epsilon);
    for (const Dtype low : {f16, bf16}) {
      CAPTURE(low);
      const amp::Autocast region(low);
      CHECK(farthest(golden, *golden.module(f32), f32, low) < roundings * format_info(low).epsilon);
    }
  }
}

TEST_CASE("attention's gradients of first and second order are those of central differences") {
  manual_seed(1);
  for (const bool causal : {false, true}) {
    nn::Attention m({.dim = 4, .heads = 2, .kv_heads = 1, .causal = causal});
    m.to(f64);
    std::vector<Tensor> in{random({1, 3, 4}, 2, f64), random({1, 2, 4}, 3, f64), random({1, 2, 4}, 4, f64)};
    for (const auto& p : m.parameters()) in.push_back(p);
    check_differences([&](const auto& v) { return m(v[0], v[1], v[2]); }, in);
  }
}

TEST_CASE("fewer key heads: the numbers and gradients of as many, each repeated for its group") {
  constexpr std::int64_t kDim = 12, kHead = 2, kGroup = 3;  // 6 heads, 2 key heads
  manual_seed(5);
  nn::Attention few({.dim = kDim, .heads = 6, .kv_heads = 2}), all({.dim = kDim, .heads = 6});
  CHECK(few.k_proj->weight.shape() == Shape{4, kDim});
  CHECK(few.v_proj->bias.shape() == Shape{4});
  const auto is_key = [](const std::string& name) { return name[0] == 'k' || name[0] == 'v'; };
  StateDict repeated;
  for (const auto& [name, t] : few.state_dict()) {
    std::vector<Tensor> heads;
    for (std::int64_t head = 0; head < 6; ++head)
      heads.push_back(is_key(name) ? t.narrow(0, head / kGroup * kHead, kHead) : t.narrow(0, head * kHead, kHead));
    repeated.emplace_back(name, cat(heads).detach());
  }
  all.load_state_dict(repeated);
  const Tensor x = random({2, 7, kDim}, 6), dy = random({2, 7, kDim}, 7);
  const Tensor a = few(x), b = all(x);
  CHECK(distance(a, b) < 4 * format_info(f32).epsilon);
  a.backward({.gradient = dy});
  b.backward({.gradient = dy});
  const auto mine = few.named_parameters(), theirs = all.named_parameters();
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const auto& name = mine[i].first;
    CAPTURE(name);
    if (name == "k_proj.bias") continue;  // zero but for rounding
    Tensor g = theirs[i].second.grad();
    if (is_key(name)) {
      const std::int64_t width = g.dim() == 2 ? kDim : 1;
      g = sum(g.reshape({2, kGroup, kHead, width}), {.dims = {1}}).reshape(mine[i].second.shape());
    }
    CHECK(distance(mine[i].second.grad(), g) < 8 * format_info(f32).epsilon);
  }
}

TEST_CASE("causal: a later token changes nothing before it; a mask of pairs says the same") {
  manual_seed(8);
  nn::Attention causal({.dim = 8, .heads = 2, .causal = true}), open({.dim = 8, .heads = 2});
  open.load_state_dict(causal.state_dict());
  Tensor x = random({2, 5, 8}, 9);
  const Tensor y = causal(x);
  const Tensor sees = tril(ones({5, 5})).to(boolean);
  CHECK(distance(open(x, x, x, sees), y) < 4 * format_info(f32).epsilon);
  CHECK(distance(open(x), y) > 0.01);
  fill_(x.narrow(1, 4, 1), 3);
  CHECK(same_bits(causal(x).narrow(1, 0, 4), y.narrow(1, 0, 4)));
  // Every head and row of the batch may have a mask of its own; a query that sees nothing takes up zeros.
  Tensor mask = ones({2, 2, 5, 5}, {.dtype = boolean});
  fill_(mask.select(0, 1), 0);
  const Tensor z = open(x, x, x, mask);
  CHECK(distance(z.select(0, 0), open(x).select(0, 0)) < 4 * format_info(f32).epsilon);
  CHECK(same_bits(z.select(0, 1), open.out_proj->bias.detach().expand({5, 8})));
}

TEST_CASE("autocast: attention gives the bits of one with 16-bit weights and inputs, forward and backward") {
  for (const Dtype dtype : {f16, bf16})
    for (const bool torchs : {false, true}) {
      CAPTURE(dtype);
      CAPTURE(torchs);
      manual_seed(10);
      const nn::AttentionOptions o{.dim = 32, .heads = 4, .kv_heads = 2, .causal = true};
      nn::Attention m(o), manual(o);
      manual.load_state_dict(m.state_dict());
      if (!torchs) manual.keep("bias", f32);  // mezzo adds biases unrounded in f32; torch rounds them first
      manual.to(dtype);
      Tensor a = random({2, 9, 32}, 11).to(dtype), b = a.clone();
      a.requires_grad_();
      b.requires_grad_();
      const amp::AutocastOptions options{.policy = torchs ? amp::Policy::torch() : amp::Policy::mezzo()};
      const Tensor got = amp::autocast(dtype, options, [&] { return m(a); }), want = manual(b);
      CHECK(got.dtype() == dtype);
      CHECK(same_bits(got, want));
      const Tensor dy = random(got.shape(), 12).to(dtype);
      got.backward({.gradient = dy});
      want.backward({.gradient = dy});
      CHECK(same_bits(a.grad(), b.grad()));
      const auto mine = m.named_parameters(), theirs = manual.named_parameters();
      for (std::size_t i = 0; i < mine.size(); ++i) {
        CAPTURE(mine[i].first);
        CHECK(mine[i].second.grad().dtype() == f32);
        CHECK(same_bits(mine[i].second.grad().to(theirs[i].second.dtype()), theirs[i].second.grad()));
      }
    }
  // Scores beyond f16's range: their softmax is f32, and finite.
  manual_seed(13);
  nn::Attention m({.dim = 32, .heads = 1, .bias = false});
  const Tensor large = mul(random({1, 8, 32}, 14), 400);
  const Tensor scores = div(matmul(m.q_proj->forward(large), m.k_proj->forward(large).transpose(1, 2)), std::sqrt(32.0));
  REQUIRE(amax(abs(scores)).item() > format_info(f16).max);
  const Tensor y = amp::autocast(f16, [&] { return m(large); });
  CHECK(distance(y, m(large)) < 16 * format_info(f16).epsilon);
}

TEST_CASE("attention's dropout: in training alone, the same after the same seed, and right on average") {
  manual_seed(15);
  nn::Attention m({.dim = 8, .heads = 2, .dropout = 0.3}), plain({.dim = 8, .heads = 2});
  plain.load_state_dict(m.state_dict());
  const Tensor x = random({2, 6, 8}, 16);
  m.eval();
  const Tensor y = m(x).detach();
  CHECK(same_bits(y, plain(x)));
  CHECK(same_bits(y, m(x)));
  m.train();
  manual_seed(17);
  const Tensor first = m(x), second = m(x);
  CHECK_FALSE(same_bits(first, second));
  CHECK_FALSE(same_bits(first, y));
  manual_seed(17);
  CHECK(same_bits(m(x), first));
  CHECK(same_bits(m(x), second));
  // The result is linear in the probabilities, whose expectation dropout keeps.
  constexpr int kDraws = 1000;
  const autograd::NoGrad off;
  Tensor total = zeros(y.shape(), {.dtype = f64}), squares = zeros(y.shape(), {.dtype = f64});
  for (int i = 0; i < kDraws; ++i) {
    const Tensor off_by = sub(m(x).to(f64), y.to(f64));
    total = add(total, off_by);
    squares = add(squares, mul(off_by, off_by));
  }
  const Tensor in_sigmas = div(abs(total), sqrt(squares));  // sum over the root of the sum of squares: about normal
  CHECK(amax(in_sigmas).item() < 5);
}

TEST_CASE("attention: names, initial values, precision under recipes, no graph under NoGrad") {
  manual_seed(18);
  nn::Attention m({.dim = 8, .heads = 2, .kv_heads = 1});
  std::vector<std::string> names;
  for (const auto& [name, p] : m.named_parameters()) names.push_back(name);
  CHECK(names == std::vector<std::string>{"q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias", "v_proj.weight", "v_proj.bias",
                                          "out_proj.weight", "out_proj.bias"});
  CHECK(m.out_proj->weight.name() == "out_proj.weight");
  for (const auto& p : m.parameters()) CHECK(amax(abs(p.detach())).item() <= 1 / std::sqrt(8.0));
  nn::Attention bare({.dim = 8, .heads = 2, .bias = false});
  CHECK(bare.parameters().size() == 4);
  optim::AdamW opt(m.named_parameters(), {.storage = optim::Storage::master, .low = bf16});
  CHECK(m.k_proj->weight.dtype() == bf16);
  CHECK(m.k_proj->bias.dtype() == f32);  // exempt
  const autograd::NoGrad off;
  CHECK_FALSE(bare(random({1, 3, 8}, 19)).requires_grad());
}

TEST_CASE("attention: bad input is an Error that says what was wanted") {
  CHECK_ERROR(nn::Attention({.heads = 2}), "[Attention]", ".dim = 0 given");
  CHECK_ERROR(nn::Attention({.dim = 8, .heads = 0}), "[Attention]", ".heads = 0 given");
  CHECK_ERROR(nn::Attention({.dim = 10, .heads = 4}), "[Attention]", ".dim = 10 for .heads = 4 given", "Hint: every head has dim / heads elements");
  CHECK_ERROR(nn::Attention({.dim = 8, .heads = 4, .kv_heads = 3}), "[Attention]", ".heads = 4 for .kv_heads = 3 given", "Hint: every key head");
  CHECK_ERROR(nn::Attention({.dim = 8, .heads = 4, .kv_heads = 8}), "[Attention]", ".heads = 4 for .kv_heads = 8 given");
  CHECK_ERROR(nn::Attention({.dim = 8, .heads = 4, .kv_heads = -1}), "[Attention]", ".kv_heads = -1 given");
  CHECK_ERROR(nn::Attention({.dim = 8, .dropout = 1}), "[Attention]", ".dropout = 1 given", "0 <= dropout < 1", "Hint:");
  CHECK_ERROR(nn::Attention({.dim = 8, .dropout = -0.1}), "[Attention]", ".dropout = -0.1 given");
  CHECK_ERROR(nn::Attention({.dim = 8, .dropout = std::nan("")}), "[Attention]", ".dropout = nan given");
  nn::Attention m({.dim = 8, .heads = 2});
  const Tensor x = zeros({2, 3, 8}), longer = zeros({2, 5, 8});
  CHECK_ERROR(m(Tensor()), "[Attention]", "x");
  CHECK_ERROR(m(zeros({3, 8})), "[Attention]", "x has shape (3, 8), (B, T, 8) wanted", "unsqueeze(0)");
  CHECK_ERROR(m(zeros({2, 3, 6})), "[Attention]", "(B, T, 8) wanted", "Hint: the last dimension");
  CHECK_ERROR(m(x, x, zeros({2, 3, 4})), "[Attention]", "the value has shape (2, 3, 4), (B, Tk, 8) wanted");
  CHECK_ERROR(m(x, longer, x), "[Attention]", "key (2, 5, 8), value (2, 3, 8) given", "key and value have one length");
  CHECK_ERROR(m(x, zeros({1, 5, 8}), zeros({1, 5, 8})), "[Attention]", "one batch");
  CHECK_ERROR(m(x, longer, longer, zeros({2, 5})), "[Attention]", "(2, 5), one that broadcasts to (2, 2, 3, 5) wanted", "{B, 1, 1, Tk}");
  CHECK_ERROR(m(x, longer, longer, zeros({1, 1, 1, 3, 5})), "[Attention]", "one that broadcasts to (2, 2, 3, 5) wanted");
  CHECK_ERROR(m(x, x, x, zeros({3, 3}, {.requires_grad = true})), "the mask requires grad", "detach()");
  CHECK_ERROR(m(zeros({2, 3, 8}, {.dtype = bf16})), "[linear]", "amp::autocast");
}
