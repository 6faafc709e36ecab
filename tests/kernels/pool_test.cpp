// pool_test.cpp - pooling and its gradients against ref/ in double; ref's gradients are checked by their adjointness.
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/pool.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

Pool pool(std::int64_t planes, std::array<std::int64_t, 2> in, std::array<std::int64_t, 2> kernel, std::array<std::int64_t, 2> stride,
          std::array<std::int64_t, 2> padding = {0, 0}, bool ceil = false, bool count_include_pad = true) {
  Pool p;
  p.planes = planes, p.in = in, p.kernel = kernel, p.stride = stride, p.padding = padding, p.count_include_pad = count_include_pad;
  for (int d = 0; d < 2; ++d) {
    p.out[d] = (in[d] + 2 * padding[d] - kernel[d] + (ceil ? stride[d] - 1 : 0)) / stride[d] + 1;
    if ((p.out[d] - 1) * stride[d] >= in[d] + padding[d]) --p.out[d];
  }
  return p;
}
Pool adaptive(std::int64_t planes, std::array<std::int64_t, 2> in, std::array<std::int64_t, 2> out) {
  Pool p;
  p.planes = planes, p.in = in, p.out = out, p.adaptive = true;
  return p;
}

/// Widths from one element to two of the widest vectors and one more, each kind of window in turn.
std::vector<Pool> windows() {
  std::vector<Pool> all;
  for (std::int64_t w = 3; w <= 36; ++w) {
    all.push_back(pool(2, {4, w}, {2, 2}, {2, 2}));
    all.push_back(pool(2, {5, w}, {3, 3}, {1, 1}, {1, 1}));
    all.push_back(pool(3, {6, w}, {3, 3}, {2, 2}, {1, 1}, w % 2 == 0, w % 3 == 0));
    all.push_back(pool(1, {5, w}, {2, 3}, {3, 1}, {1, 0}, true, false));
    all.push_back(pool(1, {7, w}, {2, 2}, {3, 4 - w % 2}, {}, w > 20));  // with gaps
    all.push_back(adaptive(2, {5, w}, {3, 1 + w % 5}));
    all.push_back(adaptive(1, {3, w}, {4, w + 2}));  // more windows than elements
  }
  all.push_back(pool(2, {1, 1}, {1, 1}, {1, 1}));
  all.push_back(pool(70, {14, 15}, {3, 3}, {2, 2}, {1, 1}));
  all.push_back(adaptive(40, {28, 30}, {1, 1}));
  return all;
}

template <class T> void check_pool(const Pool& p, std::int64_t offset, bool few_values) {
  CAPTURE(p.in[0]);
  CAPTURE(p.in[1]);
  CAPTURE(p.out[0]);
  CAPTURE(p.out[1]);
  CAPTURE(p.kernel[1]);
  CAPTURE(p.stride[1]);
  CAPTURE(p.adaptive);
  const std::int64_t in = p.planes * p.in[0] * p.in[1], out = p.planes * p.out[0] * p.out[1];
  Normals normal(static_cast<unsigned>(p.in[1]));
  const auto draw = [&] { return few_values ? std::round(normal()) : normal(); };  // few values: equal ones in most windows
  const Guarded<T> x(in, offset, draw), dy(out, offset, normal);
  const auto x64 = x.values(), dy64 = dy.values();

  if (!p.adaptive) {
    Guarded<T> y(out, offset), dx(in, offset), alone(out, offset);
    Guarded<std::int32_t> index(out, offset);
    max_pool(cpu_queue(), dtype_of<T>, p, x.data(), y.data(), index.data());
    max_pool(cpu_queue(), dtype_of<T>, p, x.data(), alone.data(), nullptr);
    std::vector<double> want(out), want_dx(in), size_dx(in);
    std::vector<std::int32_t> want_index(out);
    ref::max_pool(p, x64.data(), want.data(), want_index.data());
    check_close("max_pool", y, want, [](std::int64_t) { return 1e-30; });
    CHECK(alone.same_bits(y));
    CHECK(std::equal(want_index.begin(), want_index.end(), index.data()));
    CHECK(index.intact());
    max_pool_backward(cpu_queue(), dtype_of<T>, p, index.data(), dy.data(), dx.data());
    ref::max_pool_backward(p, want_index.data(), dy64.data(), want_dx.data());
    auto sizes = dy64;
    for (double& v : sizes) v = std::abs(v);
    ref::max_pool_backward(p, want_index.data(), sizes.data(), size_dx.data());
    check_close("max_pool_backward", dx, want_dx,
                [&](std::int64_t i) { return 16 * kUnit32 * size_dx[i] + unit<T>() * std::abs(want_dx[i]) + tiny<T>(); });
  }

  Guarded<T> y(out, offset), dx(in, offset);
  std::vector<double> want(out), size(out), want_dx(in), size_dx(in);
  auto x_sizes = x64, dy_sizes = dy64;
  for (double& v : x_sizes) v = std::abs(v);
  for (double& v : dy_sizes) v = std::abs(v);
  avg_pool(cpu_queue(), dtype_of<T>, p, x.data(), y.data());
  ref::avg_pool(p, x64.data(), want.data());
  ref::avg_pool(p, x_sizes.data(), size.data());
  const double terms = static_cast<double>(p.in[0] + p.in[1]);  // down the rows, then along them
  check_close("avg_pool", y, want, [&](std::int64_t i) { return (terms + 4) * kUnit32 * size[i] + unit<T>() * std::abs(want[i]) + tiny<T>(); });
  avg_pool_backward(cpu_queue(), dtype_of<T>, p, dy.data(), dx.data());
  ref::avg_pool_backward(p, dy64.data(), want_dx.data());
  ref::avg_pool_backward(p, dy_sizes.data(), size_dx.data());
  check_close("avg_pool_backward", dx, want_dx, [&](std::int64_t i) {
    return (static_cast<double>(p.out[0] + p.out[1]) + 4) * kUnit32 * size_dx[i] + unit<T>() * std::abs(want_dx[i]) + tiny<T>();
  });
}

}  // namespace

TEST_CASE("pooling in each dtype") {
  int n = 0;
  for (const Pool& p : windows()) {
    check_pool<float>(p, n % 3, n % 2 == 0);
    check_pool<bf16_t>(p, n % 2, n % 2 == 1);
    check_pool<f16_t>(p, n % 5, n % 4 == 0);
    ++n;
  }
}

TEST_CASE("max_pool: a NaN shows, and -inf has a place of its own") {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  const Pool p = pool(1, {2, 6}, {2, 2}, {2, 2});
  const float x[12] = {1, kNan, -kInf, -kInf, 3, 3, 2, 0, -kInf, -kInf, 3, 3};
  float y[3];
  std::int32_t index[3];
  max_pool(cpu_queue(), f32, p, x, y, index);
  CHECK(std::isnan(y[0]));
  CHECK(index[0] == 1);
  CHECK(y[1] == -kInf);
  CHECK(index[1] == 2);
  CHECK(y[2] == 3);
  CHECK(index[2] == 4);
}

TEST_CASE("f64 pools by the definition") {
  const Pool p = pool(2, {5, 7}, {3, 2}, {2, 2}, {1, 1});
  Normals normal(3);
  std::vector<double> x(2 * 35), y(2 * p.out[0] * p.out[1]), want(y);
  for (double& v : x) v = normal();
  avg_pool(cpu_queue(), f64, p, x.data(), y.data());
  ref::avg_pool(p, x.data(), want.data());
  CHECK(y == want);
}

TEST_CASE("ref: <y(x), dy> = <x, dx(dy)> for averages") {
  for (const Pool& p : windows()) {
    Normals normal(9);
    std::vector<double> x(p.planes * p.in[0] * p.in[1]), dy(p.planes * p.out[0] * p.out[1]), y(dy), dx(x);
    for (double& v : x) v = normal();
    for (double& v : dy) v = normal();
    ref::avg_pool(p, x.data(), y.data());
    ref::avg_pool_backward(p, dy.data(), dx.data());
    double a = 0, b = 0;
    for (std::size_t i = 0; i < y.size(); ++i) a += y[i] * dy[i];
    for (std::size_t i = 0; i < x.size(); ++i) b += x[i] * dx[i];
    CHECK(a == doctest::Approx(b).epsilon(1e-11));
  }
}
