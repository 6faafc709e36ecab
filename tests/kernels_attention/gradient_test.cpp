// gradient_test.cpp - the oracle's backward against central differences of its forward, in f64; and the public f64 kernels.
#include "attention_case.h"

namespace mezzo::test {
namespace {

// The loss is sum(out * dout). Central differences at step h err by h^2 f''' / 6 and by rounding / h: near 1e-10 at h = 1e-5 for values of order 1.
constexpr double kStep = 1e-5, kTolerance = 1e-8;

double loss(Problem<double>& p) {
  p.forward();
  double sum = 0;
  p.out.each([&](auto b, auto h, auto t, auto c, double& x) { sum += x * p.dout.at(b, h, t, c); });
  return sum;
}

double worst_difference(Problem<double>& p, Heads<double>& x, const Heads<double>& dx) {
  double worst = 0;
  x.each([&](auto b, auto h, auto t, auto c, double& element) {
    const double before = element;
    element = before + kStep;
    const double up = loss(p);
    element = before - kStep;
    const double down = loss(p);
    element = before;
    const double error = std::fabs((up - down) / (2 * kStep) - dx.at(b, h, t, c));
    worst = error <= worst ? worst : error;  // a NaN stays
  });
  return worst;
}

TEST_CASE("the oracle's gradients are the derivatives of its forward") {
  const Case cases[] = {
      {1, 1, 1, 3, 4, 3},
      {2, 2, 1, 4, 5, 2, true},
      {1, 2, 2, 5, 3, 2, true, MaskKind::none, 0, Layout::gaps},  // rows that see nothing
      {1, 2, 2, 3, 4, 2, false, MaskKind::additive},
      {2, 1, 1, 4, 4, 2, true, MaskKind::boolean_full, 0.3, Layout::packed},
  };
  for (const Case& c : cases) {
    const std::string what = c.name();
    CAPTURE(what);
    Problem<double> p(c);
    p.forward();
    p.backward();
    CHECK(worst_difference(p, p.q, p.dq) < kTolerance);
    CHECK(worst_difference(p, p.k, p.dk) < kTolerance);
    CHECK(worst_difference(p, p.v, p.dv) < kTolerance);
    CHECK(p.intact());
  }
}

}  // namespace
}  // namespace mezzo::test
