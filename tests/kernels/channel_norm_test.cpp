// channel_norm_test.cpp - batch norm and group norm against ref/ in double; ref's backward against complex steps.
#include <mezzo/runtime.h>

#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/channel_norm.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr double kEps = 1e-5;

ChannelNorm sizes(std::int64_t n, std::int64_t c, std::int64_t l, std::int64_t groups = 0) {
  ChannelNorm s;
  s.n = n, s.c = c, s.l = l, s.groups = groups;
  return s;
}

template <class T>
void check_norm(ChannelNorm s, std::int64_t offset, double center = 0, bool affine = true, bool accumulate = false, bool fixed = false) {
  CAPTURE(s.n);
  CAPTURE(s.c);
  CAPTURE(s.l);
  CAPTURE(s.groups);
  CAPTURE(center);
  CAPTURE(affine);
  CAPTURE(fixed);
  s.dtype = dtype_of<T>;
  const std::int64_t n = s.n * s.c * s.l, sets = s.sets();
  Normals normal(static_cast<unsigned>(7 * s.c + s.l));
  const Guarded<T> x(n, offset, Normals(static_cast<unsigned>(s.l), 1, center)), dy(n, offset, normal);
  const Guarded<float> w(s.c, offset, Normals(1, 0.5, 1)), b(s.c, offset, normal);
  const auto x64 = x.values(), dy64 = dy.values(), w64 = w.values(), b64 = b.values();
  const double *w_ref = affine ? w64.data() : nullptr, *b_ref = affine ? b64.data() : nullptr;
  const void *w_in = affine ? w.data() : nullptr, *b_in = affine ? b.data() : nullptr;

  Guarded<float> mean(sets, offset), var(sets, offset), rstd(sets, offset);
  channel_stats(cpu_queue(), s, x.data(), mean.data(), var.data());
  std::vector<double> want_mean(sets), want_var(sets), largest(sets);
  ref::channel_stats(s, x64.data(), want_mean.data(), want_var.data());
  ref::each_element(s, [&](std::int64_t e, std::int64_t, std::int64_t set) { largest[set] = std::max(largest[set], std::abs(x64[e])); });
  const double sum_tolerance = sum_error(4096);
  check_close("mean", mean, want_mean, [&](std::int64_t k) { return largest[k] * sum_tolerance + 1e-40; });
  // The center is off by a rounding of f32 at most, which enters as its square; the squares are a sum of their own.
  check_close("var", var, want_var,
              [&](std::int64_t k) { return want_var[k] * sum_tolerance + largest[k] * largest[k] * sum_tolerance * sum_tolerance + 1e-40; });

  std::vector<double> rstd64(sets), mean64(sets), want(n);
  for (std::int64_t k = 0; k < sets; ++k) {
    rstd[k] = static_cast<float>(1 / std::sqrt(value(var[k]) + kEps));
    rstd64[k] = value(rstd[k]), mean64[k] = value(mean[k]);
  }
  Guarded<T> y(n, offset);
  channel_norm(cpu_queue(), s, x.data(), mean.data(), rstd.data(), w_in, b_in, y.data());
  ref::channel_norm(s, x64.data(), mean64.data(), rstd64.data(), w_ref, b_ref, want.data());
  std::vector<double> size(n);
  ref::each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    size[e] = (std::abs(x64[e]) + std::abs(mean64[set])) * rstd64[set] * (affine ? std::abs(w64[k]) : 1) + (affine ? std::abs(b64[k]) : 0);
  });
  check_close("channel_norm", y, want, [&](std::int64_t e) { return 4 * kUnit32 * size[e] + unit<T>() * std::abs(want[e]) + tiny<T>(); });

  Guarded<T> dx(n, offset);
  Guarded<float> dw(s.c, offset, normal), db(s.c, offset, normal);
  std::vector<double> want_dx(n), want_dw(s.c), want_db(s.c), size_dx(n), size_dw(s.c), size_db(s.c), sum(sets), sum_xhat(sets);
  if (accumulate) want_dw = dw.values(), want_db = db.values();
  for (std::int64_t k = 0; k < s.c; ++k) size_dw[k] = std::abs(want_dw[k]), size_db[k] = std::abs(want_db[k]);
  channel_norm_backward(cpu_queue(), s, fixed, x.data(), mean.data(), rstd.data(), w_in, dy.data(), dx.data(), dw.data(), db.data(), accumulate);
  ref::channel_norm_backward(s, fixed, x64.data(), mean64.data(), rstd64.data(), w_ref, dy64.data(), want_dx.data(), want_dw.data(), want_db.data());
  const auto xhat = [&](std::int64_t e, std::int64_t set) { return (std::abs(x64[e]) + std::abs(mean64[set])) * rstd64[set]; };
  const auto weighted = [&](std::int64_t e, std::int64_t k) { return std::abs(dy64[e]) * (affine ? std::abs(w64[k]) : 1); };
  ref::each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    sum[set] += weighted(e, k), sum_xhat[set] += weighted(e, k) * xhat(e, set);
    size_dw[k] += std::abs(dy64[e]) * xhat(e, set), size_db[k] += std::abs(dy64[e]);
  });
  const auto count = static_cast<double>(s.set_size());
  ref::each_element(s, [&](std::int64_t e, std::int64_t k, std::int64_t set) {
    size_dx[e] = rstd64[set] * (weighted(e, k) + sum[set] / count + xhat(e, set) * sum_xhat[set] / count);
  });
  check_close("dx", dx, want_dx,
              [&](std::int64_t e) { return (sum_tolerance + 6 * kUnit32) * size_dx[e] + unit<T>() * std::abs(want_dx[e]) + tiny<T>(); });
  check_close("dw", dw, want_dw, [&](std::int64_t k) { return (sum_tolerance + 4 * kUnit32) * size_dw[k] + 1e-40; });
  check_close("db", db, want_db, [&](std::int64_t k) { return (sum_tolerance + 4 * kUnit32) * size_db[k] + 1e-40; });

  Guarded<T> alone(n, offset);
  channel_norm_backward(cpu_queue(), s, fixed, x.data(), mean.data(), rstd.data(), w_in, dy.data(), alone.data(), nullptr, nullptr, false);
  CHECK(alone.same_bits(dx));
}

template <class T> void check_all() {
  for (const std::int64_t l : lengths({64, 100, 3136, 9000})) {
    if (l == 0) continue;
    const std::int64_t n = l > 1000 ? 2 : 3;
    check_norm<T>(sizes(n, 4, l), l % 3);
    check_norm<T>(sizes(n, 6, l, 3), l % 2, 0, l % 4 != 0, l % 3 == 0);
    check_norm<T>(sizes(n, 3, l), 0, 0, l % 2 == 0, l % 5 == 0, true);
  }
  for (const std::int64_t c : lengths({64, 300})) {
    if (c == 0) continue;
    check_norm<T>(sizes(2 + c % 7, c, 1), c % 3, 0, c % 4 != 0, c % 2 == 0);
    check_norm<T>(sizes(200, c, 1), 0, 3, true, false, c % 3 == 0);  // several chunks of rows
    check_norm<T>(sizes(2, 2 * c, 1, 2), 1);
  }
}

}  // namespace

TEST_CASE("batch norm and group norm: forward and backward in each dtype") {
  check_all<float>();
  check_all<f16_t>();
  check_all<bf16_t>();
}

TEST_CASE("a mean a thousand times the deviation does not drown the variance") {
  for (const std::int64_t l : {1, 5, 64, 5000}) check_norm<float>(sizes(4, 3, l), 0, 1000);
  check_norm<float>(sizes(300, 20, 1), 0, 1000);
  check_norm<float>(sizes(3, 4, 50, 2), 0, 1000);
}

TEST_CASE("the same bits with any number of threads") {
  for (const ChannelNorm& s : {sizes(5, 7, 500), sizes(700, 33, 1), sizes(3, 8, 700, 2)}) {
    const std::int64_t n = s.n * s.c * s.l;
    const Guarded<float> x(n, 0, Normals(1)), dy(n, 0, Normals(2)), w(s.c, 0, Normals(3)), rstd(s.sets(), 0, Normals(4, 0.1, 1));
    std::vector<Guarded<float>> mean(2, Guarded<float>(s.sets())), var(mean), dx(2, Guarded<float>(n)), dw(2, Guarded<float>(s.c)), db(dw);
    const int threads = num_threads();
    for (std::size_t k = 0; k < 2; ++k) {
      set_num_threads(k == 0 ? 1 : 3);
      channel_stats(cpu_queue(), s, x.data(), mean[k].data(), var[k].data());
      channel_norm_backward(cpu_queue(), s, false, x.data(), mean[k].data(), rstd.data(), w.data(), dy.data(), dx[k].data(), dw[k].data(),
                            db[k].data(), false);
    }
    set_num_threads(threads);
    CHECK(mean[0].same_bits(mean[1]));
    CHECK(var[0].same_bits(var[1]));
    CHECK(dx[0].same_bits(dx[1]));
    CHECK(dw[0].same_bits(dw[1]));
    CHECK(db[0].same_bits(db[1]));
  }
}

TEST_CASE("ref: the backward is the derivative of statistics and norm together") {
  using Complex = std::complex<double>;
  for (const ChannelNorm& s : {sizes(3, 2, 2), sizes(4, 3, 1), sizes(2, 4, 2, 2)}) {
    const auto n = static_cast<std::size_t>(s.n * s.c * s.l), c = static_cast<std::size_t>(s.c), sets = static_cast<std::size_t>(s.sets());
    Normals normal(21);
    std::vector<double> in(n + 2 * c), dy(n), mean(sets), rstd(sets), dx(n), dw(c, 0), db(c, 0);  // in: x, w, b
    for (double& v : in) v = normal();
    for (double& v : dy) v = normal();
    ref::channel_stats(s, in.data(), mean.data(), rstd.data());
    for (double& v : rstd) v = 1 / std::sqrt(v + kEps);
    ref::channel_norm_backward<double>(s, false, in.data(), mean.data(), rstd.data(), in.data() + n, dy.data(), dx.data(), dw.data(), db.data());
    for (std::size_t i = 0; i < in.size(); ++i) {
      const double slope = complex_step({in.begin(), in.end()}, static_cast<std::int64_t>(i), [&](const std::vector<Complex>& z) {
        std::vector<Complex> m(sets), r(sets), y(n);
        ref::channel_stats(s, z.data(), m.data(), r.data());
        for (Complex& v : r) v = 1.0 / std::sqrt(v + kEps);
        ref::channel_norm(s, z.data(), m.data(), r.data(), z.data() + n, z.data() + n + c, y.data());
        Complex sum = 0;
        for (std::size_t k = 0; k < n; ++k) sum += dy[k] * y[k];
        return sum;
      });
      const double got = i < n ? dx[i] : i < n + c ? dw[i - n] : db[i - n - c];
      CHECK(got == doctest::Approx(slope).epsilon(1e-11));
    }
  }
}
