// element_loss_test.cpp - losses of one element and their slopes against ref/ in double; edges; f64.
#include "guarded.h"
#include "kernels/enumerate.h"
#include "kernels/kernels.h"
#include "kernels/ref/loss.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr double kBeta = 0.75;

/// The sizes of what is added up in f32 for a loss and its two slopes: an error is a few roundings of these.
struct Terms {
  double loss, x, t;
};
Terms terms(Loss loss, double x, double t) {
  const double d = std::abs(x - t), log_t = t > 0 ? std::abs(std::log(t)) : 0, p = std::exp(t);
  const double log_x = std::max(std::log(x), ref::kLeastLog), log_rest = std::max(std::log1p(-x), ref::kLeastLog);
  const double s = 1 / (1 + std::exp(-x));
  switch (loss) {
    case Loss::kl: return {t * (log_t + std::abs(x)), t, log_t + 1 + std::abs(x)};
    case Loss::kl_log: return {p * (std::abs(t) + std::abs(x)), p, p * (std::abs(t) + std::abs(x) + 1)};
    case Loss::binary: return {-t * log_x - (1 - t) * log_rest, d / std::max(x * (1 - x), 1e-12), -log_x - log_rest};
    case Loss::binary_logits:
      return {std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))) + std::abs(t * x), s * (1 - t) + t * (1 - s), std::abs(x)};
    default: return {d * d + d, 2 * d + 1, 2 * d + 1};
  }
}

/// Inputs and targets such as a loss is made for, the ends of their ranges among them.
template <class T> void inputs(Loss loss, Guarded<T>& x, Guarded<T>& t) {
  Normals normal(static_cast<unsigned>(loss) + 1, 2);
  const auto unit_interval = [&](std::int64_t i) { return i % 7 == 3 ? 0.0 : i % 7 == 5 ? 1.0 : 1 / (1 + std::exp(-normal())); };
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const bool of_logs = loss == Loss::kl || loss == Loss::kl_log;
    x[i] = rounded<T>(loss == Loss::binary ? unit_interval(i + 2) : of_logs ? -std::abs(normal()) : normal());
    t[i] = rounded<T>(loss == Loss::kl_log ? -std::abs(normal()) : loss >= Loss::kl ? unit_interval(i) : normal());
  }
}

template <class T> void check(Loss loss, std::int64_t n, std::int64_t offset) {
  CAPTURE(static_cast<int>(loss));
  CAPTURE(n);
  Guarded<T> x(n, offset), t(n, (offset + 1) % 4);
  inputs(loss, x, t);
  Guarded<float> got(n, offset);
  kernels::loss(cpu_queue(), loss, dtype_of<T>, x.data(), t.data(), got.data(), n, kBeta);
  std::vector<double> want(n), dx(n), dt(n);
  std::vector<Terms> size(n);
  Guarded<float> g(n, 0, Normals(9));
  with_constant(loss, [&](auto which) {
    for (std::int64_t i = 0; i < n; ++i) {
      const double a = value(x[i]), b = value(t[i]);
      want[i] = ref::element_loss<which()>(a, b, kBeta);
      const auto slopes = ref::element_loss_backward<which()>(a, b, kBeta);
      dx[i] = slopes.x, dt[i] = slopes.t;
      size[i] = terms(loss, a, b);
    }
  });
  check_close("loss", got, want, [&](std::int64_t i) { return 8 * kUnit32 * size[i].loss + 1e-44; });

  for (const bool each : {false, true}) {
    const double scale = each ? 1 : 0.125;
    const auto upstream = [&](std::int64_t i) { return value(g[each ? i : 0]) * scale; };
    Guarded<T> got_x(n, offset), got_t(n), only_x(n, 1), only_t(n, 1);
    const auto run = [&](void* a, void* b) {
      loss_backward(cpu_queue(), loss, dtype_of<T>, x.data(), t.data(), g.data(), each ? 1 : 0, scale, a, b, n, kBeta);
    };
    run(got_x.data(), got_t.data());
    run(only_x.data(), nullptr);
    run(nullptr, only_t.data());
    CHECK(only_x.same_bits(got_x));
    CHECK(only_t.same_bits(got_t));
    std::vector<double> want_x(n), want_t(n);
    for (std::int64_t i = 0; i < n; ++i) want_x[i] = dx[i] * upstream(i), want_t[i] = dt[i] * upstream(i);
    const auto tolerance = [&](double exact, double added, std::int64_t i) {
      return 8 * kUnit32 * added * std::abs(upstream(i)) + unit<T>() * std::abs(exact) + tiny<T>();
    };
    // Beyond T's range the rounded result is Inf, or next to it: binary's slope reaches 1e12.
    for (auto* wanted : {&want_x, &want_t})
      for (double& w : *wanted)
        if (std::abs(w) > format_info(dtype_of<T>).max) w = std::copysign(std::numeric_limits<double>::infinity(), w);
    check_close("dx", got_x, want_x, [&](std::int64_t i) { return tolerance(want_x[i], size[i].x, i); });
    check_close("dt", got_t, want_t, [&](std::int64_t i) { return tolerance(want_t[i], size[i].t, i); });
  }
}

}  // namespace

TEST_CASE("losses of one element: each, in each dtype, at every length") {
  for (int k = 0; k < static_cast<int>(Loss::count); ++k)
    for (const std::int64_t n : lengths({1000})) {
      if (n == 0) continue;
      check<float>(static_cast<Loss>(k), n, n % 3);
      check<f16_t>(static_cast<Loss>(k), n, n % 5);
      check<bf16_t>(static_cast<Loss>(k), n, n % 2);
    }
}

TEST_CASE("losses of one element: nothing to do, work for several threads, f64") {
  kernels::loss(cpu_queue(), Loss::huber, f32, nullptr, nullptr, nullptr, 0, 1);
  check<float>(Loss::binary_logits, 70001, 1);
  const double x[2] = {0.5, -3}, t[2] = {1, 1}, g = 2;
  double losses[2], dx[2], dt[2];
  kernels::loss(cpu_queue(), Loss::huber, f64, x, t, losses, 2, 1);
  loss_backward(cpu_queue(), Loss::huber, f64, x, t, &g, 0, 0.5, dx, dt, 2, 1);
  CHECK(losses[0] == 0.125);
  CHECK(losses[1] == 3.5);
  CHECK(dx[0] == -0.5);
  CHECK(dx[1] == -1);
  CHECK(dt[1] == 1);
}

TEST_CASE("losses of one element: NaN stays NaN; kl of a target of 0 is 0; tiny probabilities keep their digits") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity(), one = 1;
  for (int k = 0; k < static_cast<int>(Loss::count); ++k) {
    float loss = 0, dx = 0;
    const float half = 0.5f;
    kernels::loss(cpu_queue(), static_cast<Loss>(k), f32, &nan, &half, &loss, 1, kBeta);
    loss_backward(cpu_queue(), static_cast<Loss>(k), f32, &nan, &half, &one, 0, 1, &dx, nullptr, 1, kBeta);
    CAPTURE(k);
    CHECK(std::isnan(loss));
    const bool of_target = static_cast<Loss>(k) == Loss::kl || static_cast<Loss>(k) == Loss::kl_log;  // their slope knows t alone
    CHECK(std::isnan(dx) == !of_target);
  }
  float loss = 1;
  const float minus_inf = -inf, zero = 0, small = 1e-12f;
  kernels::loss(cpu_queue(), Loss::kl, f32, &minus_inf, &zero, &loss, 1, 0);
  CHECK(loss == 0);
  kernels::loss(cpu_queue(), Loss::binary, f32, &small, &zero, &loss, 1, 0);
  CHECK(std::abs(loss - small) <= 2 * kUnit32 * small);
}

TEST_CASE("cross_entropy with label smoothing against ref in double") {
  for (const std::int64_t v : {1, 5, 17, 33, 1000}) {
    constexpr std::int64_t kRows = 4;
    constexpr double kSmooth = 0.2;
    const Guarded<bf16_t> x(kRows * v, 1, Normals(4, 3));
    const std::vector<std::int64_t> target{0, v - 1, -100, v / 2};
    Guarded<float> loss(kRows), lse(kRows), dx(kRows * v);
    cross_entropy(cpu_queue(), bf16, i64, x.data(), target.data(), loss.data(), lse.data(), kRows, v, -100, 0, kSmooth);
    cross_entropy_backward(cpu_queue(), bf16, f32, i64, x.data(), target.data(), lse.data(), nullptr, 0, dx.data(), kRows, v, -100, 0, kSmooth);
    const auto x64 = x.values();
    std::vector<double> want(kRows), slopes(kRows * v);
    for (std::int64_t r = 0; r < kRows; ++r) {
      if (target[r] < 0) continue;
      const auto row = ref::cross_entropy(x64.data() + r * v, target[r], v, kSmooth);
      want[r] = row.loss;
      ref::cross_entropy_backward(x64.data() + r * v, target[r], row.lse, 1.0, slopes.data() + r * v, v, kSmooth);
    }
    check_close("loss", loss, want, [&](std::int64_t r) { return sum_error(v) * 16 + 16 * kUnit32 * (1 + std::abs(want[r])); });
    check_close("dx", dx, slopes, [&](std::int64_t) { return sum_error(v) + 32 * kUnit32; });
  }
}
