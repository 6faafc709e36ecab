// norm_test.cpp - layer norm and RMS norm against ref/ in double; ref's backward against complex steps.
#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/norm.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr double kEps = 1e-5;

struct Case {
  bool rms = false, w = true, b = true, dres = false, in_place = false, accumulate = false;
  std::int64_t rows = 1, c = 1, offset = 0;
  double mean = 0;
};

template <class T, class W> void check_norm(const Case& k) {
  CAPTURE(k.rms);
  CAPTURE(k.w);
  CAPTURE(k.b);
  CAPTURE(k.rows);
  CAPTURE(k.c);
  CAPTURE(k.offset);
  CAPTURE(k.dres);
  CAPTURE(k.in_place);
  const std::int64_t n = k.rows * k.c;
  Normals normal(static_cast<unsigned>(13 * k.c + k.rows));
  const Guarded<T> x(n, k.offset, Normals(static_cast<unsigned>(k.c), 1, k.mean)), dy(n, k.offset, normal), dres(n, k.offset, normal);
  const Guarded<W> w(k.c, k.offset, Normals(1, 0.5, 1)), b(k.c, k.offset, normal);
  const std::vector<double> x64 = x.values(), w64 = w.values(), b64 = b.values(), dy64 = dy.values(), dres64 = dres.values();
  const double* w_ref = k.w ? w64.data() : nullptr;
  const double* b_ref = k.b && !k.rms ? b64.data() : nullptr;
  const void* w_in = k.w ? w.data() : nullptr;
  const void* b_in = b_ref ? b.data() : nullptr;

  // forward
  Guarded<T> y(n, k.offset);
  Guarded<float> mean(k.rows, k.offset), rstd(k.rows, k.offset);
  layer_norm(cpu_queue(), k.rms, dtype_of<T>, dtype_of<W>, x.data(), w_in, b_in, y.data(), mean.data(), rstd.data(), k.rows, k.c, kEps);
  std::vector<double> want(n), want_mean(k.rows), want_rstd(k.rows), spread(k.rows, 0);
  for (std::int64_t r = 0; r < k.rows; ++r) {
    const auto stats = ref::layer_norm(k.rms, x64.data() + r * k.c, w_ref, b_ref, want.data() + r * k.c, k.c, kEps);
    want_mean[r] = stats.mean, want_rstd[r] = stats.rstd;
    for (std::int64_t i = 0; i < k.c; ++i) spread[r] = std::max(spread[r], std::abs(x64[r * k.c + i]));
  }
  const double sum_tolerance = sum_error(k.c);
  // An error of the mean, sum_tolerance of the largest |x|, moves every xhat by rstd times that; the variance then has its square, and sum_tolerance.
  const auto shift = [&](std::int64_t r) { return k.rms ? 0 : want_rstd[r] * spread[r] * sum_tolerance; };
  check_close("mean", mean, want_mean, [&](std::int64_t r) { return spread[r] * sum_tolerance; });
  check_close("rstd", rstd, want_rstd, [&](std::int64_t r) { return want_rstd[r] * (sum_tolerance + shift(r) * shift(r) + 2 * kUnit32); });
  check_close("layer_norm", y, want, [&](std::int64_t i) {
    const std::int64_t r = i / k.c, column = i % k.c;
    const double weight = k.w ? w64[column] : 1, bias = b_ref ? b64[column] : 0;
    return std::abs(weight) * shift(r) + (std::abs(want[i]) + std::abs(bias)) * (sum_tolerance + shift(r) * shift(r) + 4 * kUnit32) +
           unit<T>() * std::abs(want[i]) + tiny<T>();
  });

  // backward, from the statistics that the forward left
  Guarded<T> dx(n, k.offset);
  if (k.in_place) std::copy(dres.data(), dres.data() + n, dx.data());
  Guarded<float> dw(k.c, k.offset, normal), db(k.c, k.offset, normal);
  const std::vector<double> dw_before = dw.values(), db_before = db.values();
  const void* dres_in = k.in_place ? dx.data() : k.dres ? dres.data() : nullptr;
  layer_norm_backward(cpu_queue(), k.rms, dtype_of<T>, dtype_of<W>, x.data(), w_in, k.rms ? nullptr : mean.data(), rstd.data(), dy.data(), dres_in,
                      dx.data(), dw.data(), db.data(), k.accumulate, k.rows, k.c);
  std::vector<double> want_dx(n), want_dw(k.c, 0), want_db(k.c, 0), size_dx(n), size_dw(k.c, 0), size_db(k.c, 0);
  if (k.accumulate) want_dw = dw_before, want_db = db_before;
  for (std::int64_t r = 0; r < k.rows; ++r) {
    const ref::NormStats<double> stats{k.rms ? 0 : value(mean[r]), value(rstd[r])};
    const std::int64_t at = r * k.c;
    ref::layer_norm_backward(k.rms, x64.data() + at, w_ref, stats, dy64.data() + at, dres_in ? dres64.data() + at : nullptr, want_dx.data() + at,
                             want_dw.data(), want_db.data(), k.c);
    double sum = 0, sum_xhat = 0;
    for (std::int64_t i = 0; i < k.c; ++i) {
      const double xhat = std::abs(x64[at + i] - stats.mean) * stats.rstd, dxhat = std::abs(dy64[at + i] * (k.w ? w64[i] : 1));
      sum += dxhat, sum_xhat += dxhat * xhat;
      size_dw[i] += std::abs(dy64[at + i]) * xhat, size_db[i] += std::abs(dy64[at + i]);
    }
    for (std::int64_t i = 0; i < k.c; ++i) {
      const double xhat = std::abs(x64[at + i] - stats.mean) * stats.rstd, dxhat = std::abs(dy64[at + i] * (k.w ? w64[i] : 1));
      size_dx[at + i] = stats.rstd * (dxhat + sum / k.c + xhat * sum_xhat / k.c);
    }
  }
  check_close("dx", dx, want_dx, [&](std::int64_t i) {
    return (sum_tolerance + 6 * kUnit32) * size_dx[i] + (dres_in ? std::abs(dres64[i]) * kUnit32 : 0) + unit<T>() * std::abs(want_dx[i]) + tiny<T>();
  });
  // Rows are summed in f32: at most one rounding a row.
  const double rows_tolerance = (static_cast<double>(k.rows) + 8) * kUnit32;
  const auto before = [&](double v) { return k.accumulate ? std::abs(v) : 0; };
  check_close("dw", dw, want_dw, [&](std::int64_t i) { return rows_tolerance * (size_dw[i] + before(dw_before[i])) + 1e-40; });
  check_close("db", db, want_db, [&](std::int64_t i) { return rows_tolerance * (size_db[i] + before(db_before[i])) + 1e-40; });
  if (k.in_place || k.accumulate) return;

  // the same dx without dw and db
  Guarded<T> alone(n, k.offset);
  layer_norm_backward(cpu_queue(), k.rms, dtype_of<T>, dtype_of<W>, x.data(), w_in, k.rms ? nullptr : mean.data(), rstd.data(), dy.data(), dres_in,
                      alone.data(), nullptr, nullptr, false, k.rows, k.c);
  CHECK(alone.same_bits(dx));
}

template <class T> void check_all() {
  for (const bool rms : {false, true}) {
    for (const std::int64_t c : lengths({64, 65, 100, 384, 1600, 5003})) {
      if (c == 0) continue;
      for (const std::int64_t rows : {1, 3, 6}) {
        check_norm<T, float>({.rms = rms, .rows = rows, .c = c, .offset = c % 3});
        check_norm<T, T>({.rms = rms, .b = c % 2 == 0, .dres = true, .rows = rows, .c = c, .offset = c % 2});
      }
      check_norm<T, float>({.rms = rms, .w = false, .b = false, .in_place = true, .rows = 5, .c = c});
    }
    for (const std::int64_t rows : {32, 33, 67, 300}) check_norm<T, float>({.rms = rms, .accumulate = true, .rows = rows, .c = 24, .offset = 1});
    check_norm<T, float>({.rms = rms, .dres = true, .rows = 2500, .c = 40});
  }
}

}  // namespace

TEST_CASE("layer_norm, rms_norm: forward and backward in each dtype") {
  check_all<float>();
  check_all<f16_t>();
  check_all<bf16_t>();
}

TEST_CASE("layer_norm: a mean a thousand times the deviation does not drown the variance") {
  for (const std::int64_t c : {7, 64, 1000}) check_norm<float, float>({.rows = 4, .c = c, .mean = 1000});
}

TEST_CASE("layer_norm: f64 keeps f64 statistics and sums") {
  constexpr std::int64_t kRows = 37, kC = 11;
  Normals normal(9);
  const auto make = [&](std::int64_t n) {
    std::vector<double> v(n);
    for (double& e : v) e = normal();
    return v;
  };
  const std::vector<double> x = make(kRows * kC), dy = make(kRows * kC), w = make(kC), b = make(kC);
  std::vector<double> y(kRows * kC), dx(kRows * kC), mean(kRows), rstd(kRows), dw(kC), db(kC), want_y(kRows * kC), want_dx(kRows * kC), want_dw(kC),
      want_db(kC);
  layer_norm(cpu_queue(), false, f64, f64, x.data(), w.data(), b.data(), y.data(), mean.data(), rstd.data(), kRows, kC, kEps);
  layer_norm_backward(cpu_queue(), false, f64, f64, x.data(), w.data(), mean.data(), rstd.data(), dy.data(), nullptr, dx.data(), dw.data(), db.data(),
                      false, kRows, kC);
  for (std::int64_t r = 0; r < kRows; ++r) {
    const auto stats = ref::layer_norm(false, x.data() + r * kC, w.data(), b.data(), want_y.data() + r * kC, kC, kEps);
    ref::layer_norm_backward<double>(false, x.data() + r * kC, w.data(), stats, dy.data() + r * kC, nullptr, want_dx.data() + r * kC, want_dw.data(),
                                     want_db.data(), kC);
    CHECK(rstd[r] == stats.rstd);
  }
  for (std::int64_t i = 0; i < kRows * kC; ++i) {
    CHECK(y[i] == doctest::Approx(want_y[i]).epsilon(1e-14));
    CHECK(dx[i] == doctest::Approx(want_dx[i]).epsilon(1e-13));
  }
  for (std::int64_t i = 0; i < kC; ++i) {
    CHECK(dw[i] == doctest::Approx(want_dw[i]).epsilon(1e-13));
    CHECK(db[i] == doctest::Approx(want_db[i]).epsilon(1e-13));
  }
}

TEST_CASE("layer_norm: a NaN or Inf spoils its own row only, in y and dx") {
  constexpr std::int64_t kRows = 6, kC = 37;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Guarded<float> x(kRows * kC, 1, Normals(2));
    const Guarded<float> w(kC, 0, Normals(3)), dy(kRows * kC, 0, Normals(4));
    x[2 * kC + 36] = bad;
    Guarded<float> y(kRows * kC), dx(kRows * kC), mean(kRows), rstd(kRows), dw(kC), db(kC);
    layer_norm(cpu_queue(), false, f32, f32, x.data(), w.data(), nullptr, y.data(), mean.data(), rstd.data(), kRows, kC, kEps);
    layer_norm_backward(cpu_queue(), false, f32, f32, x.data(), w.data(), mean.data(), rstd.data(), dy.data(), nullptr, dx.data(), dw.data(),
                        db.data(), false, kRows, kC);
    for (std::int64_t i = 0; i < kRows * kC; ++i) {
      CHECK(std::isnan(y[i]) == (i / kC == 2));
      CHECK(std::isnan(dx[i]) == (i / kC == 2));
    }
    CHECK(std::isnan(dw[0]));
    CHECK_FALSE(std::isnan(db[0]));
  }
}

TEST_CASE("layer_norm_backward: the same bits with any number of threads") {
  constexpr std::int64_t kRows = 515, kC = 96;
  const Guarded<bf16_t> x(kRows * kC, 0, Normals(1)), dy(kRows * kC, 0, Normals(2));
  const Guarded<float> w(kC, 0, Normals(3)), mean(kRows, 0, Normals(4, 0.1)), rstd(kRows, 0, Normals(5, 0.1, 1));
  Guarded<bf16_t> dx[2] = {Guarded<bf16_t>(kRows * kC), Guarded<bf16_t>(kRows * kC)};
  Guarded<float> dw[2] = {Guarded<float>(kC), Guarded<float>(kC)}, db[2] = {Guarded<float>(kC), Guarded<float>(kC)};
  const int threads = num_threads();
  for (int k = 0; k < 2; ++k) {
    set_num_threads(k == 0 ? 1 : 3);
    layer_norm_backward(cpu_queue(), false, bf16, f32, x.data(), w.data(), mean.data(), rstd.data(), dy.data(), nullptr, dx[k].data(), dw[k].data(),
                        db[k].data(), false, kRows, kC);
  }
  set_num_threads(threads);
  CHECK(dx[0].same_bits(dx[1]));
  CHECK(dw[0].same_bits(dw[1]));
  CHECK(db[0].same_bits(db[1]));
}

TEST_CASE("layer_norm: no rows leave dw and db at zero, or as they were") {
  float dw[2] = {3, 4}, db[2] = {5, 6};
  const auto run = [&](bool accumulate) {
    layer_norm_backward(cpu_queue(), false, f32, f32, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, dw, db, accumulate, 0, 2);
  };
  run(true);
  CHECK(dw[1] == 4);
  CHECK(db[0] == 5);
  run(false);
  CHECK(dw[1] == 0);
  CHECK(db[0] == 0);
}

TEST_CASE("ref: the backward of both norms is the derivative of the forward") {
  using Complex = std::complex<double>;
  constexpr std::int64_t kC = 6;
  Normals normal(21);
  // x, w and b in one vector, so that one derivative serves all three
  std::vector<double> in(3 * kC), dy(kC), y(kC);
  for (double& v : in) v = normal();
  for (double& v : dy) v = normal();
  for (const bool rms : {false, true}) {
    std::vector<double> dx(kC), dw(kC, 0), db(kC, 0);
    const auto stats = ref::layer_norm(rms, in.data(), in.data() + kC, in.data() + 2 * kC, y.data(), kC, kEps);
    ref::layer_norm_backward<double>(rms, in.data(), in.data() + kC, stats, dy.data(), nullptr, dx.data(), dw.data(), db.data(), kC);
    for (std::int64_t i = 0; i < 3 * kC; ++i) {
      const double slope = complex_step({in.begin(), in.end()}, i, [&](const std::vector<Complex>& z) {
        std::vector<Complex> out(kC);
        ref::layer_norm(rms, z.data(), z.data() + kC, z.data() + 2 * kC, out.data(), kC, kEps);
        Complex sum = 0;
        for (std::int64_t k = 0; k < kC; ++k) sum += dy[k] * out[k];
        return sum;
      });
      const double got = i < kC ? dx[i] : i < 2 * kC ? dw[i - kC] : db[i - 2 * kC];
      CHECK(got == doctest::Approx(slope).epsilon(1e-12));
    }
  }
}
