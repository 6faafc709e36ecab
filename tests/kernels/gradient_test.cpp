// gradient_test.cpp - statistics and scaling of gradients: exact counts, sums to 1e-6, scales beyond f32.
#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/gradient.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

// gradient.cpp adds at most 14 times in f32 before it goes on in f64.
constexpr double kTolerance = 14 * kUnit32;
static_assert(kTolerance < 1e-6);

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

template <class T> GradStats run(const Guarded<T>& g, double scale, Dtype round = f32) {
  GradStats stats;
  grad_stats(cpu_queue(), dtype_of<T>, g.data(), g.size(), scale, &stats, round);
  return stats;
}

// Against ref on the elements as they are loaded, scaled in f32.
template <class T, class Round = T> void check_stats(const Guarded<T>& g, float scale, Dtype round = f32) {
  CAPTURE(g.size());
  CAPTURE(scale);
  std::vector<float> loaded(g.size());
  for (std::int64_t i = 0; i < g.size(); ++i) loaded[i] = static_cast<float>(value(rounded<Round>(value(g[i]))));
  const GradStats want = ref::grad_stats(loaded.data(), g.size(), scale), got = run(g, value(scale), round);
  CHECK(got.inf == want.inf);
  CHECK(got.nan == want.nan);
  CHECK(got.zero == want.zero);
  if (std::isfinite(want.sum_squares)) CHECK(std::abs(got.sum_squares - want.sum_squares) <= kTolerance * want.sum_squares);
  else CHECK_FALSE(std::isfinite(got.sum_squares));
}

template <class T> void check_all() {
  for (const std::int64_t n : lengths({64, 65, 1000, 32768, 32769, 70001})) {
    Guarded<T> g(n, n % 3, Normals(static_cast<unsigned>(n)));
    check_stats(g, 1.0f);
    check_stats(g, 0.0123f);
    for (std::int64_t i = 0; i < n; i += 3) g[i] = rounded<T>(i % 2 ? 0.0 : -0.0);
    check_stats(g, 1.0f);
    for (std::int64_t i = 0; i < n; i += 5) g[i] = rounded<T>(i % 2 ? kInf : -kInf);
    check_stats(g, 0.5f);
    for (std::int64_t i = 0; i < n; i += 7) g[i] = rounded<T>(kNan);
    check_stats(g, 2.0f);
  }
}

}  // namespace

TEST_CASE("grad_stats: counts and sum in each dtype") {
  check_all<float>();
  check_all<f16_t>();
  check_all<bf16_t>();
}

TEST_CASE("grad_stats: one bad element anywhere shows") {
  for (const std::int64_t n : {1, 17, 40000}) {
    for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
      Guarded<bf16_t> g(n, 1, Normals(1));
      g[at] = bf16_t(kInf);
      CHECK(run(g, 1).inf == 1);
      CHECK(run(g, 1).sum_squares == kInf);
      g[at] = bf16_t(kNan);
      CHECK(run(g, 1).nan == 1);
      CHECK(run(g, 1).inf == 0);
      CHECK(std::isnan(run(g, 1).sum_squares));
    }
  }
}

TEST_CASE("grad_stats: squares neither overflow nor vanish, and the scale may overflow an element") {
  const Guarded<float> large(100, 0, [] { return 1e30; }), small(100, 0, [] { return 1e-30; }), largest(10, 0, [] { return 3e38; });
  CHECK(run(large, 1).sum_squares == doctest::Approx(100 * std::pow(value(1e30f), 2)).epsilon(1e-14));
  CHECK(run(large, 1).inf == 0);
  CHECK(run(small, 1).sum_squares == doctest::Approx(100 * std::pow(value(1e-30f), 2)).epsilon(1e-14));
  CHECK(run(largest, 2).inf == 10);
  // small squares next to vanishing ones, and next to zeros only
  Guarded<float> mixed(5000, 0, [] { return 0; });
  mixed[17] = 1e-30f;
  for (std::int64_t i = 100; i < 5000; i += 3) mixed[i] = 1e-22f;
  check_stats(mixed, 1.0f);
  Guarded<float> one(5000, 0, [] { return 0; });
  one[4321] = 1e-40f;
  check_stats(one, 1.0f);
}

TEST_CASE("grad_stats: an f32 buffer is seen as the 16-bit gradient it stands for") {
  Guarded<float> g(1000, 1, Normals(2, 1e-7));  // around f16's smallest subnormal: many round to 0
  check_stats<float, f16_t>(g, 3.0f, f16);
  check_stats<float, bf16_t>(g, 3.0f, bf16);
  CHECK(run(g, 1, f16).zero > 0);
  CHECK(run(g, 1).zero == 0);
  g[500] = 65520;  // Inf in f16 only
  CHECK(run(g, 1, f16).inf == 1);
  CHECK(run(g, 1, bf16).inf == 0);
}

TEST_CASE("grad_stats: millions of equal terms keep a relative 1e-6, with any number of threads") {
  constexpr std::int64_t kN = 3'000'001;
  const Guarded<float> g(kN, 0, [] { return 0.1; });
  const int threads = num_threads();
  set_num_threads(1);
  const GradStats one = run(g, 1);
  set_num_threads(3);
  const GradStats three = run(g, 1);
  set_num_threads(threads);
  CHECK(one.sum_squares == three.sum_squares);
  CHECK(one.sum_squares == doctest::Approx(kN * value(0.1f) * value(0.1f)).epsilon(kTolerance));
}

TEST_CASE("scales that f32 cannot hold turn no zero into NaN and lose no bits") {
  for (const double scale : {0x1p-140, 1.5 * 0x1p-135, 0x1p130, -0x1p140, 1e300}) {
    CAPTURE(scale);
    const double factor = std::abs(scale) > 1 ? 1e-30 : 1e30;
    Guarded<float> g(40, 1, Normals(3, factor));
    g[7] = 0;
    const std::vector<double> before = g.values();
    const GradStats stats = run(g, scale);
    CHECK(stats.nan == 0);
    CHECK(stats.zero == 1);
    scale_inplace(cpu_queue(), f32, g.data(), 40, scale);
    for (std::int64_t i = 0; i < 40; ++i) CHECK(g[i] == static_cast<float>(before[i] * scale));
  }
}

TEST_CASE("scale_inplace: one rounding in each dtype; f64 in f64") {
  const auto check = [&]<class T>(T) {
    for (const std::int64_t n : lengths({65, 40001})) {
      Guarded<T> g(n, n % 3, Normals(static_cast<unsigned>(n)));
      std::vector<double> want = g.values();
      for (double& v : want) v = value(rounded<T>(static_cast<float>(v) * 0.3f));
      scale_inplace(cpu_queue(), dtype_of<T>, g.data(), n, value(0.3f));
      check_close("scale_inplace", g, want, [](std::int64_t) { return 0.0; });
    }
  };
  check(float());
  check(f16_t());
  check(bf16_t());
  double g[3] = {0.1, -0.7, 1e300};
  GradStats stats;
  grad_stats(cpu_queue(), f64, g, 2, 3, &stats);
  CHECK(stats.sum_squares == doctest::Approx(9 * 0.5).epsilon(1e-15));
  scale_inplace(cpu_queue(), f64, g, 3, 0.3);
  CHECK(g[1] == -0.7 * 0.3);
}
