// golden_test.cpp - every op against PyTorch's float64 values and gradients, its second derivative against differences, and its 16- and
// 32-bit forms against its f64 one.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "autograd/op_table.h"
#include "grad/cases.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

std::vector<double> values(const Tensor& t) {
  const Tensor d = t.detach().to(f64).contiguous();
  const auto s = d.data<double>();
  return {s.begin(), s.end()};
}

/// Largest |a - b| over max(1, largest |b|), and whether non-finite elements agree (infinite where tolerance is meaningless).
double distance(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return std::numeric_limits<double>::infinity();
  const auto x = values(a), y = values(b);
  double scale = 1, worst = 0;
  for (const double v : y)
    if (std::isfinite(v)) scale = std::max(scale, std::fabs(v));
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    const double d = std::fabs(x[i] - y[i]) / scale;
    worst = std::isfinite(d) ? std::max(worst, d) : std::numeric_limits<double>::infinity();
  }
  return worst;
}

/// sum over outputs of <out, dy>, whose gradient is what backward with dy gives.
Tensor paired(const std::vector<Tensor>& out, const std::vector<Tensor>& dy) {
  Tensor s;
  for (std::size_t i = 0; i < out.size(); ++i) {
    const Tensor p = sum(mul(out[i], dy[i].to(out[i].dtype())));
    s = s.defined() ? add(s, p) : p;
  }
  return s;
}

std::vector<Tensor> wanted(const OpCase& c, const std::vector<Tensor>& in) {
  std::vector<Tensor> w;
  for (const auto& g : c.grad) w.push_back(in[g.first]);
  return w;
}

const OpInfo* row(const std::string& op) {
  for (const auto& r : op_table::kOps)
    if (r.name == op) return &r;
  return nullptr;
}

/// How much larger than eps an error may be because of the inputs themselves: x - lse and x - mean cancel where x is large.
double condition(const OpCase& c) {
  double largest = 0;
  if (c.op == "cross_entropy" || c.op == "log_softmax" || c.op == "softmax" || c.name == "layer_norm.far" || c.name == "var.far")
    for (const double v : values(c.in[0])) largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : largest;
  return std::max(1.0, largest);
}
bool in_range(const Tensor& t, Dtype dtype) {
  const auto v = values(t);
  return std::all_of(v.begin(), v.end(), [&](double x) { return std::fabs(x) <= format_info(dtype).max; });
}

bool finite(const std::vector<Tensor>& ts) {
  for (const auto& t : ts)
    for (const double v : values(t))
      if (!std::isfinite(v)) return false;
  return true;
}

}  // namespace

TEST_CASE("f64: outputs and gradients are PyTorch's") {
  for (const auto& c : golden_cases()) {
    CAPTURE(c.name);
    const auto in = leaves(c, f64);
    const auto out = run(c, in);
    REQUIRE(out.size() == c.out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      CHECK(out[i].dtype() == c.out[i].dtype());
      CHECK(distance(out[i], c.out[i]) < 1e-12);
    }
    if (c.grad.empty()) continue;
    for (std::size_t i = 0; i < out.size(); ++i) out[i].backward({.gradient = c.dy[i], .retain_graph = i + 1 < out.size()});
    for (const auto& [input, g] : c.grad) {
      const auto i = input;
      CAPTURE(i);
      REQUIRE(in[i].grad().defined());
      CHECK(distance(in[i].grad(), g) < 1e-11);
    }
  }
}

TEST_CASE("second derivatives of smooth ops agree with central differences of the first at two step sizes") {
  std::set<std::string> covered;
  for (const auto& c : golden_cases()) {
    const OpInfo* info = row(c.op);
    if (!info || info->check != Check::smooth || c.grad.empty()) continue;
    if (c.name.find("tails") != std::string::npos) continue;  // values at the ends of the range: differences say nothing there
    if (c.name == "norm.max" || c.name == "norm.zero" || c.name == "norm.one" || c.name == "pow.of_zero" || c.name == "pow.inverse")
      continue;  // kinks and poles
    CAPTURE(c.name);
    auto in = leaves(c, f64);
    if (!finite(c.out) || !finite(c.in)) continue;
    Generator random(7);
    std::vector<Tensor> r;
    for (const auto& g : c.grad) r.push_back(randn(g.second.shape(), random, {.dtype = f64}));
    const auto first = [&](bool graph) {
      const auto w = wanted(c, in);
      return autograd::grad({paired(run(c, in), c.dy)}, w, {.create_graph = graph});
    };
    const auto contracted = [&](const std::vector<Tensor>& g) {
      Tensor s;
      for (std::size_t i = 0; i < g.size(); ++i) s = s.defined() ? add(s, sum(mul(g[i], r[i]))) : sum(mul(g[i], r[i]));
      return s;
    };
    const auto w = wanted(c, in);
    const auto g = first(true);
    const Tensor s = contracted(g);
    double terms = 0;  // a difference of sums of this size is rounded to about 1e-16 of it
    for (std::size_t i = 0; i < g.size(); ++i) terms += sum(mezzo::abs(mul(g[i].detach(), r[i]))).item();
    std::vector<Tensor> second(w.size());
    if (s.requires_grad()) second = autograd::grad({s}, w, {.allow_unused = true});
    for (std::size_t k = 0; k < w.size(); ++k) {
      Tensor x = w[k];
      const auto got = second[k].defined() ? values(second[k]) : std::vector<double>(static_cast<std::size_t>(x.numel()));
      for (std::size_t e = 0; e < got.size(); ++e) {
        double error = std::numeric_limits<double>::infinity(), expected = 0;
        for (const double h : {1e-4, 1e-5}) {
          const double at = x.data<double>()[e];
          const auto f = [&](double v) {
            x.mutable_data<double>()[e] = v;
            return contracted(first(false)).item();
          };
          const double up = f(at + h), down = f(at - h);
          x.mutable_data<double>()[e] = at;
          const double d = (up - down) / (2 * h);
          const double noise = 1e-15 * terms / h;
          if (const double now = std::max(0.0, std::fabs(got[e] - d) - noise) / std::max(1.0, std::fabs(d)); now < error) {
            error = now;
            expected = d;
          }
        }
        CAPTURE(e);
        CAPTURE(got[e]);
        CAPTURE(expected);
        CHECK(error < 2e-6);
      }
    }
    covered.insert(c.op);
  }
  CHECK(covered.size() >= 25);
}

TEST_CASE("f32, bf16, f16: outputs and gradients within the format's rounding of the f64 op on the same inputs") {
  for (const Dtype dtype : {f32, bf16, f16}) {
    const double eps = format_info(dtype).epsilon;
    double worst_out = 0, worst_grad = 0;
    for (const auto& c : golden_cases()) {
      const auto in = leaves(c, dtype);
      auto exact_in = leaves(c, f64);
      for (std::size_t i = 0; i < in.size(); ++i)
        if (is_floating(in[i].dtype())) {
          const autograd::NoGrad off;
          copy_(exact_in[i], in[i]);
        }
      std::vector<Tensor> dy;
      for (const auto& t : c.dy) dy.push_back(t.to(dtype).to(f64));
      const auto exact = run(c, exact_in);
      if (!finite(exact)) continue;
      if (!std::all_of(exact.begin(), exact.end(), [&](const Tensor& t) { return in_range(t, dtype); })) continue;
      CAPTURE(c.name);
      CAPTURE(dtype);
      const auto out = run(c, in);
      for (std::size_t i = 0; i < out.size(); ++i) {
        if (!is_floating(out[i].dtype())) continue;
        const bool loss = c.op == "cross_entropy" || c.op == "linear_cross_entropy";  // its losses are f32
        CHECK(out[i].dtype() == (loss ? f32 : dtype));
        const double d = distance(out[i], exact[i]) / condition(c);
        CHECK(d <= 2 * eps);
        worst_out = std::max(worst_out, d / eps);
      }
      if (c.grad.empty()) continue;
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i].backward({.gradient = dy[i].to(dtype), .retain_graph = true});
        exact[i].backward({.gradient = dy[i], .retain_graph = true});
      }
      for (const auto& g : c.grad) {
        if (!in_range(exact_in[g.first].grad(), dtype)) continue;
        const double d = distance(in[g.first].grad(), exact_in[g.first].grad()) / condition(c);
        CAPTURE(g.first);
        CHECK(d <= 8 * eps);
        worst_grad = std::max(worst_grad, d / eps);
      }
    }
    MESSAGE(name(dtype) << ": outputs within " << worst_out << " eps, gradients within " << worst_grad << " eps");
  }
}

TEST_CASE("every differentiable op of the table has a golden case, or is named here with the test that checks it") {
  const std::set<std::string> elsewhere{"swiglu",     "packed_attention",
                                        "rope",
                                        "dropout",  // composite_test.cpp
                                        "sum_dim",
                                        "mean_dim",  // cases of sum and mean with dims
                                        "to",         "clone",
                                        "contiguous", "reshape",
                                        "transpose",  "permute",
                                        "narrow",     "expand",
                                        "unsqueeze",  "squeeze",
                                        "select",     "identity",
                                        "scale"};  // tests/autograd, tests/amp
  std::set<std::string> cases;
  for (const auto& c : golden_cases()) cases.insert(c.op);
  for (const auto& r : op_table::kOps) {
    if (r.check == Check::none) continue;
    CAPTURE(r.name);
    CHECK((cases.count(std::string(r.name)) || elsewhere.count(std::string(r.name))));
  }
}
