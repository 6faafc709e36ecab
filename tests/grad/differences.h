// differences.h - gradients of first and second order against central differences in f64.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <vector>

#include <mezzo/mezzo.h>

namespace mezzo::test {

/// Checks d(sum f . dy) by every element of `in` (f64 leaves) and, with `second`, the derivative of that. f may also depend on leaves it does not
/// take from its argument, as a module does on its parameters: they stand in `in` all the same.
inline void check_differences(const std::function<Tensor(const std::vector<Tensor>&)>& f, std::vector<Tensor> in, bool second = true) {
  Generator random(11);
  for (auto& t : in) t.requires_grad_();
  const Tensor probe = f(in);
  const Tensor dy = randn(probe.shape(), random, {.dtype = f64});
  std::vector<Tensor> r;
  for (const auto& t : in) r.push_back(randn(t.shape(), random, {.dtype = f64}));
  const auto value = [&] { return sum(mul(f(in), dy)); };
  const auto slope = [&](bool graph) {
    const auto g = autograd::grad({value()}, in, {.create_graph = graph});
    Tensor s;
    for (std::size_t i = 0; i < g.size(); ++i) s = s.defined() ? add(s, sum(mul(g[i], r[i]))) : sum(mul(g[i], r[i]));
    return s;
  };
  const auto compare = [&](const std::vector<Tensor>& got, const std::function<double()>& at) {
    for (std::size_t k = 0; k < in.size(); ++k) {
      Tensor x = in[k];
      for (std::size_t e = 0; e < static_cast<std::size_t>(x.numel()); ++e) {
        const double v = x.data<double>()[e], h = 1e-5;
        x.mutable_data<double>()[e] = v + h;
        const double up = at();
        x.mutable_data<double>()[e] = v - h;
        const double down = at();
        x.mutable_data<double>()[e] = v;
        const double d = (up - down) / (2 * h), g = got[k].defined() ? got[k].reshape({-1}).select(0, static_cast<std::int64_t>(e)).item() : 0;
        CAPTURE(k);
        CAPTURE(e);
        CHECK(std::fabs(g - d) <= 1e-7 * std::max(1.0, std::fabs(d)));
      }
    }
  };
  compare(autograd::grad({value()}, in), [&] { return value().item(); });
  if (second) compare(autograd::grad({slope(true)}, in, {.allow_unused = true}), [&] { return slope(false).item(); });
}

}  // namespace mezzo::test
