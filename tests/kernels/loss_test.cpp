// loss_test.cpp - cross-entropy against ref/ in double; ref's backward against complex steps.
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/loss.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr std::int64_t kIgnore = -100;

struct Sizes {
  std::int64_t rows, v, ld, offset;
};

// Targets over the row, some of them ignored.
template <class I> std::vector<I> make_targets(const Sizes& s) {
  std::vector<I> target(s.rows);
  for (std::int64_t r = 0; r < s.rows; ++r) target[r] = static_cast<I>(r % 5 == 3 ? kIgnore : (r * 7919 + s.v - 1) % s.v);
  return target;
}

template <class T, class To, class I> void check_cross_entropy(const Sizes& s, bool scaled) {
  CAPTURE(s.rows);
  CAPTURE(s.v);
  CAPTURE(s.ld);
  CAPTURE(s.offset);
  CAPTURE(scaled);
  const Guarded<T> x(s.rows * s.ld, s.offset, Normals(static_cast<unsigned>(s.v), 3));
  const std::vector<I> target = make_targets<I>(s);
  const std::vector<double> x64 = x.values();
  Guarded<float> loss(s.rows), lse(s.rows), loss_only(s.rows);
  cross_entropy(cpu_queue(), dtype_of<T>, dtype_of<I>, x.data(), target.data(), loss.data(), lse.data(), s.rows, s.v, kIgnore, s.ld);
  cross_entropy(cpu_queue(), dtype_of<T>, dtype_of<I>, x.data(), target.data(), loss_only.data(), nullptr, s.rows, s.v, kIgnore, s.ld);
  CHECK(loss_only.same_bits(loss));

  std::vector<double> want_loss(s.rows), want_lse(s.rows), range(s.rows);
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const double* row = x64.data() + r * s.ld;
    const bool ignored = target[r] == kIgnore;
    const auto want = ref::cross_entropy(row, ignored ? 0 : static_cast<std::int64_t>(target[r]), s.v);
    want_loss[r] = ignored ? 0 : want.loss, want_lse[r] = want.lse;
    range[r] = *std::max_element(row, row + s.v) - *std::min_element(row, row + s.v);
  }
  // The log of the sum has the sum's relative error as an absolute one; x - max is rounded to half an ulp of the range.
  const auto log_sum_error = [&](std::int64_t r) { return sum_error(s.v) + (range[r] + 8) * kUnit32 + 4 * kUnit32 * std::log(s.v + 1.0); };
  check_close("loss", loss, want_loss, [&](std::int64_t r) { return log_sum_error(r) + 2 * kUnit32 * (range[r] + std::abs(want_loss[r])); });
  check_close("lse", lse, want_lse, [&](std::int64_t r) { return log_sum_error(r) + 2 * kUnit32 * std::abs(want_lse[r]); });

  // backward from that lse; one scale for each row, or one for all
  const std::vector<float> scale = scaled ? std::vector<float>(s.rows, 0) : std::vector<float>{0.375f};
  std::vector<float> scales = scale;
  for (std::size_t r = 0; scaled && r < scales.size(); ++r) scales[r] = 0.01f * static_cast<float>(r) - 0.3f;
  Guarded<To> dx(s.rows * s.ld, s.offset);
  cross_entropy_backward(cpu_queue(), dtype_of<T>, dtype_of<To>, dtype_of<I>, x.data(), target.data(), lse.data(), scales.data(), scaled ? 1 : 0,
                         dx.data(), s.rows, s.v, kIgnore, s.ld);
  std::vector<double> want(s.rows * s.ld, 0), tolerance(s.rows * s.ld, 0);
  for (std::int64_t r = 0; r < s.rows; ++r) {
    if (target[r] == kIgnore) continue;
    const double factor = value(scales[scaled ? r : 0]);
    ref::cross_entropy_backward(x64.data() + r * s.ld, static_cast<std::int64_t>(target[r]), value(lse[r]), factor, want.data() + r * s.ld, s.v);
    for (std::int64_t i = 0; i < s.v; ++i) {
      const double p = std::exp(x64[r * s.ld + i] - value(lse[r])), hot = i == target[r] ? 1 : 0,
                   distance = std::abs(x64[r * s.ld + i] - value(lse[r]));
      const double exact = std::abs(want[r * s.ld + i]);
      tolerance[r * s.ld + i] = std::abs(factor) * kUnit32 * (p * (distance + 8) + hot) + unit<To>() * exact + 2 * kUnit32 * exact + tiny<To>();
    }
  }
  check_close("dx", dx, want, [&](std::int64_t i) { return tolerance[i]; });
  if constexpr (std::is_same_v<T, To>) {
    Guarded<T> in_place = x;
    cross_entropy_backward(cpu_queue(), dtype_of<T>, dtype_of<T>, dtype_of<I>, in_place.data(), target.data(), lse.data(), scales.data(),
                           scaled ? 1 : 0, in_place.data(), s.rows, s.v, kIgnore, s.ld);
    CHECK(in_place.same_bits(dx));
    CHECK(in_place.intact());
  }
}

template <class T, class To> void check_all() {
  for (const std::int64_t v : lengths({64, 65, 127, 1000, 5001})) {
    if (v == 0) continue;
    check_cross_entropy<T, To, std::int64_t>({6, v, v, v % 3}, v % 2);
    check_cross_entropy<T, To, std::int32_t>({4, v, v + v % 7, v % 2}, v % 2 == 0);
  }
  check_cross_entropy<T, To, std::int64_t>({530, 65, 80, 1}, true);
}

}  // namespace

TEST_CASE("cross_entropy: forward and backward in each dtype") {
  check_all<float, float>();
  check_all<f16_t, f16_t>();
  check_all<bf16_t, bf16_t>();
  check_all<float, bf16_t>();
  check_all<bf16_t, float>();
}

TEST_CASE("cross_entropy: a vocabulary of 150,001, padded") {
  check_cross_entropy<bf16_t, bf16_t, std::int64_t>({2, 150001, 150016, 0}, true);
  check_cross_entropy<float, float, std::int32_t>({2, 150001, 150001, 1}, true);
}

TEST_CASE("cross_entropy: f64 loss and gradient, no scale") {
  const std::vector<double> x{0.5, -1.25, 2, 0.25, 3, -2};
  const std::vector<std::int64_t> target{1, kIgnore};
  double loss[2], lse[2], dx[6];
  cross_entropy(cpu_queue(), f64, i64, x.data(), target.data(), loss, lse, 2, 3, kIgnore);
  cross_entropy_backward(cpu_queue(), f64, f64, i64, x.data(), target.data(), lse, nullptr, 0, dx, 2, 3, kIgnore);
  const double sum = std::exp(0.5) + std::exp(-1.25) + std::exp(2.0);
  CHECK(lse[0] == doctest::Approx(std::log(sum)).epsilon(1e-15));
  CHECK(loss[0] == doctest::Approx(std::log(sum) + 1.25).epsilon(1e-15));
  CHECK(dx[0] == doctest::Approx(std::exp(0.5) / sum).epsilon(1e-14));
  CHECK(dx[1] == doctest::Approx(std::exp(-1.25) / sum - 1).epsilon(1e-14));
  CHECK(loss[1] == 0);
  for (int i = 3; i < 6; ++i) CHECK(dx[i] == 0);
}

TEST_CASE("cross_entropy: infinities and NaN") {
  constexpr std::int64_t kV = 37;
  const std::int64_t first = 0;
  float loss, lse;
  Guarded<float> x(kV, 1, Normals(8)), dx(kV, 1);
  const auto run = [&] {
    cross_entropy(cpu_queue(), f32, i64, x.data(), &first, &loss, &lse, 1, kV, kIgnore);
    cross_entropy_backward(cpu_queue(), f32, f32, i64, x.data(), &first, &lse, nullptr, 0, dx.data(), 1, kV, kIgnore);
  };
  x[36] = -kInf;  // a class that cannot be: no gradient, and no harm
  run();
  CHECK(std::isfinite(loss));
  CHECK(dx[36] == 0.0f);
  x[0] = -kInf;  // it was the target
  run();
  CHECK(loss == kInf);
  CHECK(dx[0] == -1.0f);
  for (const float bad : {kInf, std::numeric_limits<float>::quiet_NaN()}) {
    x[36] = bad;
    run();
    CHECK(std::isnan(loss));
    CHECK(std::isnan(dx[0]));
  }
  std::fill(x.data(), x.data() + kV, -kInf);
  run();
  CHECK(std::isnan(loss));
  std::fill(x.data(), x.data() + kV, -1000.0f);  // a target that is certain has no loss, exactly
  x[0] = 1000.0f;
  run();
  CHECK(loss == 0.0f);
  CHECK(lse == 1000.0f);
  CHECK(dx[0] == 0.0f);
}

TEST_CASE("ref: the backward of cross-entropy is the derivative of the forward") {
  constexpr std::int64_t kV = 5;
  Normals normal(4);
  std::vector<double> x(kV), dx(kV);
  for (double& v : x) v = normal();
  for (std::int64_t target = 0; target < kV; ++target) {
    const auto forward = ref::cross_entropy(x.data(), target, kV);
    ref::cross_entropy_backward(x.data(), target, forward.lse, 0.75, dx.data(), kV);
    for (std::int64_t i = 0; i < kV; ++i) {
      const double slope = complex_step(
          {x.begin(), x.end()}, i, [&](const std::vector<std::complex<double>>& z) { return 0.75 * ref::cross_entropy(z.data(), target, kV).loss; });
      CHECK(dx[i] == doctest::Approx(slope).epsilon(1e-13));
    }
  }
}
