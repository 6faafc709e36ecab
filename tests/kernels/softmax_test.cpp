// softmax_test.cpp - softmax and log_softmax against ref/ in double; ref's backward against complex steps.
#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/softmax.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();

// Rounding x - max to f32 is an error in the exponent, so relative in the result: up to half an ulp of the row's range. Exp itself: a few ulp.
double exp_error(const std::vector<double>& x) {
  if (x.empty()) return 0;
  const auto [lo, hi] = std::minmax_element(x.begin(), x.end());
  return (*hi - *lo + 8) * kUnit32;
}

template <class From, class To> void check_forward(bool log, std::int64_t rows, std::int64_t c, std::int64_t offset) {
  CAPTURE(log);
  CAPTURE(rows);
  CAPTURE(c);
  CAPTURE(offset);
  const Guarded<From> x(rows * c, offset, Normals(static_cast<unsigned>(7 * c + rows), 3));
  Guarded<To> y(rows * c, offset);
  softmax(cpu_queue(), log, dtype_of<From>, dtype_of<To>, x.data(), y.data(), rows, c);
  const std::vector<double> in = x.values();
  std::vector<double> want(in.size());
  for (std::int64_t r = 0; r < rows; ++r) ref::softmax(log, in.data() + r * c, want.data() + r * c, c);
  const double error = exp_error(in) + sum_error(c);
  check_close("softmax", y, want, [&](std::int64_t i) {
    return log ? error + (unit<To>() + 2 * kUnit32) * std::abs(want[i]) : (error + unit<To>() + 2 * kUnit32) * want[i] + tiny<To>();
  });
}

template <class From, class To> void check_backward(bool log, std::int64_t rows, std::int64_t c, std::int64_t offset) {
  CAPTURE(log);
  CAPTURE(rows);
  CAPTURE(c);
  CAPTURE(offset);
  Normals normal(static_cast<unsigned>(11 * c + rows));
  std::vector<double> x(rows * c), exact(rows * c);
  for (double& v : x) v = normal();
  for (std::int64_t r = 0; r < rows; ++r) ref::softmax(log, x.data() + r * c, exact.data() + r * c, c);
  Guarded<From> y(rows * c, offset);
  for (std::int64_t i = 0; i < rows * c; ++i) y[i] = rounded<From>(exact[i]);
  const Guarded<From> dy(rows * c, offset, normal);
  Guarded<To> dx(rows * c, offset);
  softmax_backward(cpu_queue(), log, dtype_of<From>, dtype_of<To>, y.data(), dy.data(), dx.data(), rows, c);
  const std::vector<double> y64 = y.values(), dy64 = dy.values();
  std::vector<double> want(rows * c), size(rows, 0);
  for (std::int64_t r = 0; r < rows; ++r) {
    ref::softmax_backward(log, y64.data() + r * c, dy64.data() + r * c, want.data() + r * c, c);
    for (std::int64_t i = r * c; i < (r + 1) * c; ++i) size[r] += std::abs(log ? dy64[i] : dy64[i] * y64[i]);
  }
  check_close("softmax_backward", dx, want, [&](std::int64_t i) {
    const double p = log ? std::exp(y64[i]) : y64[i], sum = size[i / c];
    const double terms = p * sum * (sum_error(c) + (log ? 8 + std::abs(y64[i]) : 2.0) * kUnit32) + 3 * kUnit32 * (log ? 1.0 : p) * std::abs(dy64[i]);
    return terms + unit<To>() * std::abs(want[i]) + tiny<To>();
  });
}

template <class From, class To> void check_all() {
  for (const bool log : {false, true}) {
    for (const std::int64_t c : lengths({64, 65, 127, 1000, 4099})) {
      for (const std::int64_t rows : {1, 3}) {
        check_forward<From, To>(log, rows, c, c % 3);
        check_backward<From, To>(log, rows, c, c % 3);
      }
    }
    check_forward<From, To>(log, 700, 65, 1);
    check_backward<From, To>(log, 700, 65, 1);
  }
}

}  // namespace

TEST_CASE("softmax: every pair of dtypes, forward and backward") {
  check_all<float, float>();
  check_all<f16_t, f16_t>();
  check_all<bf16_t, bf16_t>();
  check_all<f16_t, float>();
  check_all<bf16_t, float>();
  check_all<float, f16_t>();
  check_all<float, bf16_t>();
}

TEST_CASE("softmax: a vocabulary of 150,001") {
  check_forward<float, float>(false, 2, 150001, 1);
  check_forward<bf16_t, float>(true, 2, 150001, 1);
  check_backward<float, float>(false, 1, 150001, 1);
}

TEST_CASE("softmax: f64 is computed in f64") {
  for (const bool log : {false, true}) {
    const std::vector<double> x{0.25, -1.5, 3, 0.125}, dy{1, -2, 0.5, 3};
    std::vector<double> y(4), dx(4), want(4);
    softmax(cpu_queue(), log, f64, f64, x.data(), y.data(), 2, 2);
    softmax_backward(cpu_queue(), log, f64, f64, y.data(), dy.data(), dx.data(), 2, 2);
    for (int r = 0; r < 2; ++r) {  // two classes: the logistic function
      const double p = 1 / (1 + std::exp(x[2 * r + 1] - x[2 * r]));
      const double slope = log ? dy[2 * r] * (1 - p) - dy[2 * r + 1] * p : p * (1 - p) * (dy[2 * r] - dy[2 * r + 1]);
      CHECK(y[2 * r] == doctest::Approx(log ? std::log(p) : p).epsilon(1e-14));
      CHECK(dx[2 * r] == doctest::Approx(slope).epsilon(1e-13));
      CHECK(dx[2 * r + 1] == doctest::Approx(-slope).epsilon(1e-13));
    }
  }
}

TEST_CASE("softmax: -inf entries are exact zeros; +Inf, NaN and rows of -inf give NaN") {
  for (const std::int64_t c : {3, 16, 17, 40, 2100}) {
    for (const std::int64_t at : {std::int64_t{0}, c / 2, c - 1}) {
      CAPTURE(c);
      CAPTURE(at);
      Guarded<float> x(c, 1, Normals(5));
      Guarded<float> y(c, 1), log_y(c, 1);
      const auto run = [&] {
        softmax(cpu_queue(), false, f32, f32, x.data(), y.data(), 1, c);
        softmax(cpu_queue(), true, f32, f32, x.data(), log_y.data(), 1, c);
      };
      x[at] = -std::numeric_limits<float>::infinity();
      run();
      CHECK(y[at] == 0.0f);
      CHECK(value(log_y[at]) == -kInf);
      const auto is_nan = [](float v) { return std::isnan(v); };
      double sum = 0;
      for (const double v : y.values()) sum += v;
      CHECK(sum == doctest::Approx(1).epsilon(1e-6));
      for (const double bad : {kInf, kNan}) {
        x[at] = static_cast<float>(bad);
        run();
        CHECK(std::all_of(y.data(), y.data() + c, is_nan));
        CHECK(is_nan(log_y[at]));
        CHECK(is_nan(log_y[(at + 1) % c]));
      }
      std::fill(x.data(), x.data() + c, -std::numeric_limits<float>::infinity());
      run();
      CHECK(std::all_of(y.data(), y.data() + c, is_nan));
      CHECK(std::all_of(log_y.data(), log_y.data() + c, is_nan));
      x[at] = -1e30f;  // all the mass on one entry
      run();
      CHECK(y[at] == 1.0f);
      CHECK(log_y[at] == 0.0f);
      CHECK(y[(at + 1) % c] == 0.0f);
    }
  }
}

TEST_CASE("ref: the backward of softmax and log_softmax is the derivative of the forward") {
  constexpr std::int64_t kN = 7;
  Normals normal(3);
  std::vector<double> x(kN), dy(kN), y(kN), dx(kN);
  for (std::int64_t i = 0; i < kN; ++i) x[i] = normal(), dy[i] = normal();
  for (const bool log : {false, true}) {
    ref::softmax(log, x.data(), y.data(), kN);
    ref::softmax_backward(log, y.data(), dy.data(), dx.data(), kN);
    for (std::int64_t i = 0; i < kN; ++i) {
      const double slope = complex_step({x.begin(), x.end()}, i, [&](const std::vector<std::complex<double>>& z) {
        std::vector<std::complex<double>> out(kN);
        ref::softmax(log, z.data(), out.data(), kN);
        std::complex<double> sum = 0;
        for (std::int64_t k = 0; k < kN; ++k) sum += dy[k] * out[k];
        return sum;
      });
      CHECK(dx[i] == doctest::Approx(slope).epsilon(1e-13));
    }
  }
}
