// adafactor.cpp - what Adafactor's step needs to know of the whole parameter: means of squares along rows and columns, and two norms.
//
// Two looks at the gradient, since the second moments must be complete before the step they imply has a norm. Blocks of rows of a fixed size add up
// in f64, in order: the sums do not depend on the number of threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adafactor.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <numeric>
#include <vector>

#include "core/parallel.h"
#include "kernels/cpu/store-inl.h"
#include "kernels/kernels.h"
#include "kernels/ref/optimizer.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {

// Rows [begin, end) of (n / columns): mean squares of each row to `means`, squares of each column added to `columns` (columns), those of the truth
// to *weights.
template <class StoreT> void SquaresOfRows(const Update& u, std::int64_t begin, std::int64_t end, float* means, float* columns, double* weights) {
  const hn::ScalableTag<float> d;
  const AnyGradient gradient(u);
  const StoreT store(u);
  const auto size = static_cast<std::size_t>(u.columns);
  for (std::int64_t row = begin; row < end; ++row) {
    const std::size_t first = static_cast<std::size_t>(row) * size;
    const Two<double> sums = SumTwo(d, size, [&](std::size_t c, auto access) MEZZO_BODY {
      const auto g = gradient.Load(d, first + c, access), squares = hn::Mul(g, g), w = store.Load(d, first + c, access);
      access.Store(hn::Add(access.Load(d, columns + c), squares), d, columns + c);
      return Two<hn::VFromD<decltype(d)>>{squares, hn::Mul(w, w)};
    });
    means[row] = static_cast<float>(sums.first / static_cast<double>(size));
    *weights += sums.second;
  }
}

// The squares of the same rows' g / sqrt(max(factor[row] v[column], eps^2)).
double StepOfRows(const Update& u, std::int64_t begin, std::int64_t end) {
  const hn::ScalableTag<float> d;
  const AnyGradient gradient(u);
  const ref::Adafactor<float> rule(u);
  const auto size = static_cast<std::size_t>(u.columns);
  double total = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    const std::size_t first = static_cast<std::size_t>(row) * size;
    const float* v = static_cast<const float*>(u.v) + row / u.rows * u.columns;
    const float factor = static_cast<const float*>(u.factor)[row];
    total += Sum(d, size, [&](std::size_t c, auto access) MEZZO_BODY {
      const auto g = gradient.Load(d, first + c, access), estimate = hn::Mul(hn::Set(d, factor), access.Load(d, v + c));
      return hn::Div(hn::Mul(g, g), hn::Max(estimate, hn::Set(d, rule.least)));
    });
  }
  return total;
}

// Elements [begin, end) of a parameter that is not factored: moments, and both sums.
template <class StoreT> void StepOfElements(const Update& u, std::int64_t begin, std::int64_t end, double* sums) {
  const hn::ScalableTag<float> d;
  const AnyGradient gradient(u);
  const StoreT store(u);
  const ref::Adafactor<float> rule(u);
  const auto lerp = hn::Set(d, static_cast<float>(u.beta2)), least = hn::Set(d, rule.least);
  const auto first = static_cast<std::size_t>(begin);
  float* m = static_cast<float*>(u.m);
  const Two<double> found = SumTwo(d, static_cast<std::size_t>(end - begin), [&](std::size_t k, auto access) MEZZO_BODY {
    const std::size_t i = first + k;
    const auto g = gradient.Load(d, i, access), squares = hn::Mul(g, g), w = store.Load(d, i, access), m0 = access.Load(d, m + i);
    const auto m1 = hn::Add(m0, hn::Mul(lerp, hn::Sub(squares, m0)));
    access.Store(m1, d, m + i);
    return Two<hn::VFromD<decltype(d)>>{hn::Mul(w, w), hn::Div(squares, hn::Max(m1, least))};
  });
  sums[0] = found.first;
  sums[1] = found.second;
}

void SquaresRange(const Update& u, std::int64_t begin, std::int64_t end, float* means, float* columns, double* weights) {
  DispatchStore(u, [&]<class StoreT>() { SquaresOfRows<StoreT>(u, begin, end, means, columns, weights); });
}
void StepRange(const Update& u, std::int64_t begin, std::int64_t end, double* sums) {
  if (u.rows > 0) *sums = StepOfRows(u, begin, end);
  else DispatchStore(u, [&]<class StoreT>() { StepOfElements<StoreT>(u, begin, end, sums); });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(SquaresRange);
HWY_EXPORT(StepRange);
namespace {

constexpr std::int64_t kBlockElements = 32768, kBlockRows = 256;

/// Blocks of a fixed size of [0, n), body(block, begin, end).
template <class F> void for_each_block(std::int64_t n, std::int64_t size, F&& body) {
  parallel_for((n + size - 1) / size, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) body(b, b * size, std::min(n, (b + 1) * size));
  });
}

// m, v and factor of one matrix from its rows' means and the columns of its blocks (blocks, columns).
void bring_up_to_date(const Update& u, std::int64_t matrix, const float* means, const float* columns, std::int64_t blocks) {
  const float lerp = static_cast<float>(u.beta2);
  float *m = static_cast<float*>(u.m) + matrix * u.rows, *v = static_cast<float*>(u.v) + matrix * u.columns;
  float* factor = static_cast<float*>(u.factor) + matrix * u.rows;
  double total = 0;
  for (std::int64_t r = 0; r < u.rows; ++r) {
    m[r] = m[r] + lerp * (means[r] - m[r]);
    total += static_cast<double>(m[r]);
  }
  const double mean = std::max(total / static_cast<double>(u.rows), u.eps);
  for (std::int64_t r = 0; r < u.rows; ++r) factor[r] = static_cast<float>(static_cast<double>(m[r]) / mean);
  for (std::int64_t c = 0; c < u.columns; ++c) {
    double sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += static_cast<double>(columns[b * u.columns + c]);
    v[c] = v[c] + lerp * (static_cast<float>(sum / static_cast<double>(u.rows)) - v[c]);
  }
}

void factored_moments(Queue& queue, const Update& u, double sums[2]) {
  const std::int64_t rows = u.n / u.columns, matrices = rows / u.rows, blocks = (u.rows + kBlockRows - 1) / kBlockRows;  // of a matrix
  const Block means_block = queue.scratch(static_cast<std::size_t>(rows) * sizeof(float)),
              columns_block = queue.scratch(static_cast<std::size_t>(matrices * blocks * u.columns) * sizeof(float)),
              weights_block = queue.scratch(static_cast<std::size_t>(matrices * blocks) * sizeof(double));
  auto *means = means_block.as<float>(), *columns = columns_block.as<float>();  // (rows), (matrices, blocks, columns)
  auto* weights = weights_block.as<double>();                                   // (matrices, blocks)
  const auto for_each_part = [&](auto&& body) {                                 // body(part, first row, last row)
    for_each_block(matrices * blocks, 1, [&](std::int64_t part, std::int64_t, std::int64_t) {
      const std::int64_t first = part / blocks * u.rows, begin = part % blocks * kBlockRows;
      body(part, first + begin, first + std::min(u.rows, begin + kBlockRows));
    });
  };
  for_each_part([&](std::int64_t part, std::int64_t begin, std::int64_t end) {
    std::fill_n(columns + part * u.columns, u.columns, 0.0f);
    weights[part] = 0;
    HWY_DYNAMIC_DISPATCH(SquaresRange)(u, begin, end, means, columns + part * u.columns, weights + part);
  });
  for_each_block(matrices, 1, [&](std::int64_t k, std::int64_t, std::int64_t) {
    bring_up_to_date(u, k, means + k * u.rows, columns + k * blocks * u.columns, blocks);
  });
  sums[0] = std::accumulate(weights, weights + matrices * blocks, 0.0);
  for_each_part([&](std::int64_t part, std::int64_t begin, std::int64_t end) { HWY_DYNAMIC_DISPATCH(StepRange)(u, begin, end, weights + part); });
  sums[1] = std::accumulate(weights, weights + matrices * blocks, 0.0);
}

}  // namespace

void adafactor_moments(Queue& queue, const Update& u, double sums[2]) {
  MEZZO_CHECK(u.rows == 0 || (u.columns > 0 && u.n % (u.rows * u.columns) == 0 && u.factor));
  if (u.g_dtype == f64) {
    std::vector<double> g(static_cast<const double*>(u.g), static_cast<const double*>(u.g) + u.n);
    for (auto& x : g) x *= u.g_scale;
    return ref::adafactor_moments(u, static_cast<const double*>(u.w), g.data(), static_cast<double*>(u.m), static_cast<double*>(u.v),
                                  static_cast<double*>(u.factor), sums);
  }
  if (u.rows > 0) return factored_moments(queue, u, sums);
  const std::int64_t blocks = (u.n + kBlockElements - 1) / kBlockElements;
  const Block found_block = queue.scratch(static_cast<std::size_t>(blocks) * 2 * sizeof(double));
  auto* found = found_block.as<double>();  // (blocks, 2)
  for_each_block(u.n, kBlockElements, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(StepRange)(u, begin, end, found + 2 * b);
  });
  sums[0] = sums[1] = 0;
  for (std::int64_t b = 0; b < blocks; ++b) {
    sums[0] += found[2 * b];
    sums[1] += found[2 * b + 1];
  }
}

}  // namespace mezzo::kernels
#endif
