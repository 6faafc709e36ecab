// rope_test.cpp - rotary embedding against ref/ in double: both pairings, positions far out, backward as the inverse turn.
#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/rope.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

struct Case {
  std::int64_t rows, t, heads, d;
  bool interleaved;
  double sign = 1;
  std::vector<std::int64_t> positions = {};
};

std::vector<float> frequencies(std::int64_t d) {
  std::vector<float> f(d / 2);
  for (std::int64_t i = 0; i < d / 2; ++i) f[i] = static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(d)));
  return f;
}

template <class T> void check_rope(const Case& k) {
  CAPTURE(k.rows);
  CAPTURE(k.t);
  CAPTURE(k.heads);
  CAPTURE(k.d);
  CAPTURE(k.interleaved);
  const std::int64_t n = k.rows * k.heads * k.d;
  const std::vector<float> inv_freq = frequencies(k.d);
  const Guarded<T> x(n, 1, Normals(static_cast<unsigned>(k.d)));
  Guarded<T> y(n, 1);
  rope(cpu_queue(), dtype_of<T>, x.data(), y.data(), inv_freq.data(), k.positions.empty() ? nullptr : k.positions.data(), k.rows, k.t, k.heads, k.d,
       k.interleaved, k.sign);
  const std::vector<double> x64 = x.values();
  std::vector<double> want(n);
  for (std::int64_t r = 0; r < k.rows; ++r) {
    for (std::int64_t h = r * k.heads; h < (r + 1) * k.heads; ++h) {
      ref::rope(x64.data() + h * k.d, want.data() + h * k.d, inv_freq.data(), k.positions.empty() ? r % k.t : k.positions[r % k.t], k.d,
                k.interleaved, k.sign);
    }
  }
  // cos and sin rounded to f32, two products and a sum; |a| + |b| of the pair is at most twice the norm of the head's largest element.
  double largest = 0;
  for (const double v : x64) largest = std::max(largest, std::abs(v));
  check_close("rope", y, want, [&](std::int64_t i) { return 6 * kUnit32 * largest + unit<T>() * std::abs(want[i]) + tiny<T>(); });
}

}  // namespace

TEST_CASE("rope: every even head size up to two vectors and more, both pairings") {
  for (const bool interleaved : {false, true}) {
    for (std::int64_t d = 0; d <= 68; d += 2) {
      check_rope<float>({6, 3, 2, d, interleaved});
      check_rope<bf16_t>({5, 5, 3, d, interleaved, -1});
      check_rope<f16_t>({4, 2, 1, d, interleaved});
    }
    check_rope<float>({512, 256, 4, 64, interleaved});
    check_rope<bf16_t>({7, 3, 2, 128, interleaved});  // a last sequence that is cut off
  }
}

TEST_CASE("rope: positions of the caller's, far from zero") {
  for (const bool interleaved : {false, true}) check_rope<float>({8, 4, 2, 48, interleaved, 1, {3, 0, 131071, 1000000}});
}

TEST_CASE("rope: the backward turns back") {
  constexpr std::int64_t kN = 4 * 2 * 20;
  const std::vector<float> inv_freq = frequencies(20);
  for (const bool interleaved : {false, true}) {
    std::vector<double> x(kN), y(kN), z(kN);
    Normals normal(6);
    for (double& v : x) v = normal();
    rope(cpu_queue(), f64, x.data(), y.data(), inv_freq.data(), nullptr, 4, 4, 2, 20, interleaved, 1);
    rope(cpu_queue(), f64, y.data(), z.data(), inv_freq.data(), nullptr, 4, 4, 2, 20, interleaved, -1);
    double norm_x = 0, norm_y = 0;
    for (std::int64_t i = 0; i < kN; ++i) {
      CHECK(z[i] == doctest::Approx(x[i]).epsilon(1e-14));
      norm_x += x[i] * x[i], norm_y += y[i] * y[i];
    }
    CHECK(norm_y == doctest::Approx(norm_x).epsilon(1e-14));
    const std::int64_t second = interleaved ? 41 : 50;  // row 1, head 0, pair 0: one radian
    CHECK(y[40] == doctest::Approx(x[40] * std::cos(1.0) - x[second] * std::sin(1.0)).epsilon(1e-14));
    CHECK(y[second] == doctest::Approx(x[second] * std::cos(1.0) + x[40] * std::sin(1.0)).epsilon(1e-14));
  }
}
