// interim.cpp - plain versions of kernels whose vector forms are still to land; weak, so that those win. Goes with the last of them.
#include <cmath>
#include <cstring>
#include <vector>

#include "core/philox.h"
#include "kernels/kernels.h"

#define WEAK __attribute__((weak))

namespace mezzo::kernels {
namespace {
double get(Dtype t, const void* p, std::int64_t i) {
  switch (t) {
    case Dtype::f32: return static_cast<const float*>(p)[i];
    case Dtype::f16: return static_cast<float>(static_cast<const f16_t*>(p)[i]);
    case Dtype::bf16: return static_cast<float>(static_cast<const bf16_t*>(p)[i]);
    case Dtype::f64: return static_cast<const double*>(p)[i];
    case Dtype::i32: return static_cast<const std::int32_t*>(p)[i];
    case Dtype::i64: return static_cast<double>(static_cast<const std::int64_t*>(p)[i]);
    default: return static_cast<const std::uint8_t*>(p)[i];
  }
}
void put(Dtype t, void* p, std::int64_t i, double v) {
  switch (t) {
    case Dtype::f32: static_cast<float*>(p)[i] = static_cast<float>(v); break;
    case Dtype::f16: static_cast<f16_t*>(p)[i] = f16_t(static_cast<float>(v)); break;
    case Dtype::bf16: static_cast<bf16_t*>(p)[i] = bf16_t(static_cast<float>(v)); break;
    case Dtype::f64: static_cast<double*>(p)[i] = v; break;
    case Dtype::i32: static_cast<std::int32_t*>(p)[i] = static_cast<std::int32_t>(v); break;
    case Dtype::i64: static_cast<std::int64_t*>(p)[i] = static_cast<std::int64_t>(v); break;
    case Dtype::boolean: static_cast<std::uint8_t*>(p)[i] = v != 0; break;
    default: static_cast<std::uint8_t*>(p)[i] = static_cast<std::uint8_t>(v); break;
  }
}
template <class F> void walk(const Strided& s, F f) {
  std::array<std::int64_t, kMaxDims> at{};
  const auto n = s.numel();
  std::array<std::int64_t, 4> o{};
  for (std::int64_t i = 0; i < n; ++i) {
    f(o);
    for (int d = s.dims - 1; d >= 0; --d) {
      for (int k = 0; k < s.operands; ++k) o[k] += s.stride[k][d];
      if (++at[d] < s.size[d]) break;
      for (int k = 0; k < s.operands; ++k) o[k] -= s.stride[k][d] * s.size[d];
      at[d] = 0;
    }
  }
}
double op(Binary b, double x, double y) {
  switch (b) {
    case Binary::add: return x + y;
    case Binary::sub: return x - y;
    case Binary::mul: return x * y;
    case Binary::div: return x / y;
    case Binary::pow: return std::pow(x, y);
    case Binary::maximum: return x != x ? x : y != y ? y : std::max(x, y);
    case Binary::minimum: return x != x ? x : y != y ? y : std::min(x, y);
    default: return 0;
  }
}
}  // namespace

WEAK void dropout(Queue&, Dtype t, const void* x, void* y, std::int64_t n, double p, std::uint64_t seed, std::uint64_t offset) {
  for (std::int64_t i = 0; i < n; ++i) {
    const bool drop = philox::uniform(philox::block(seed, offset + static_cast<std::uint64_t>(i / 4))[static_cast<std::size_t>(i % 4)]) < static_cast<float>(p);
    put(t, y, i, drop ? 0 : get(t, x, i) / (1 - p));
  }
}
WEAK void reduce(Queue&, Reduce r, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, double scale) {
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < inner; ++i) {
      double a = r == Reduce::prod ? 1 : r == Reduce::amax ? -INFINITY : 0;
      for (std::int64_t k = 0; k < n; ++k) {
        const double v = get(from, x, (o * n + k) * inner + i);
        a = r == Reduce::prod ? a * v : r == Reduce::amax ? op(Binary::maximum, a, v) : r == Reduce::sum_abs ? a + std::fabs(v) : r == Reduce::sum_squares ? a + v * v : a + v;
      }
      put(to, y, o * inner + i, a * scale);
    }
}
WEAK void cumsum(Queue&, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner, bool reverse) {
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < inner; ++i) {
      double a = 0;
      for (std::int64_t k = 0; k < n; ++k) {
        const auto at = (o * n + (reverse ? n - 1 - k : k)) * inner + i;
        put(to, y, at, a += get(from, x, at));
      }
    }
}
WEAK void sum_rows(Queue&, Dtype t, const void* x, float* sums, std::int64_t rows, std::int64_t c, bool accumulate) {
  for (std::int64_t i = 0; i < c; ++i) {
    double a = accumulate ? sums[i] : 0;
    for (std::int64_t r = 0; r < rows; ++r) a += get(t, x, r * c + i);
    sums[i] = static_cast<float>(a);
  }
}
WEAK void gather_rows(Queue&, Dtype from, Dtype to, Dtype it, const void* table, const void* ids, void* y, std::int64_t n, std::int64_t c) {
  for (std::int64_t r = 0; r < n; ++r)
    for (std::int64_t i = 0; i < c; ++i) put(to, y, r * c + i, get(from, table, static_cast<std::int64_t>(get(it, ids, r)) * c + i));
}
WEAK void scatter_add_rows(Queue&, Dtype from, Dtype to, Dtype it, const void* dy, const void* ids, void* sums, std::int64_t n, std::int64_t, std::int64_t c, std::int64_t skip) {
  for (std::int64_t r = 0; r < n; ++r) {
    const auto id = static_cast<std::int64_t>(get(it, ids, r));
    if (id == skip) continue;
    for (std::int64_t i = 0; i < c; ++i) put(to, sums, id * c + i, get(to, sums, id * c + i) + get(from, dy, r * c + i));
  }
}
WEAK void gather(Queue&, Dtype t, Dtype it, const void* x, const void* index, void* y, std::int64_t outer, std::int64_t fn, std::int64_t n, std::int64_t inner) {
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t k = 0; k < n; ++k)
      for (std::int64_t i = 0; i < inner; ++i) {
        const auto at = (o * n + k) * inner + i;
        put(t, y, at, get(t, x, (o * fn + static_cast<std::int64_t>(get(it, index, at))) * inner + i));
      }
}
WEAK void scatter_add(Queue&, Dtype t, Dtype it, const void* src, const void* index, void* y, std::int64_t outer, std::int64_t tn, std::int64_t n, std::int64_t inner) {
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t k = 0; k < n; ++k)
      for (std::int64_t i = 0; i < inner; ++i) {
        const auto at = (o * n + k) * inner + i, into = (o * tn + static_cast<std::int64_t>(get(it, index, at))) * inner + i;
        put(t, y, into, get(t, y, into) + get(t, src, at));
      }
}
WEAK void index_bounds(Queue&, Dtype it, const void* index, std::int64_t n, std::int64_t* b) {
  b[0] = INT64_MAX;
  b[1] = INT64_MIN;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto v = static_cast<std::int64_t>(get(it, index, i));
    b[0] = std::min(b[0], v);
    b[1] = std::max(b[1], v);
  }
}
WEAK void uniform(Queue&, Dtype t, void* y, std::int64_t n, std::uint64_t seed, std::uint64_t offset) {
  for (std::int64_t i = 0; i < n; ++i) put(t, y, i, philox::uniform(philox::block(seed, offset + static_cast<std::uint64_t>(i / 4))[static_cast<std::size_t>(i % 4)]));
}
WEAK void normal(Queue&, Dtype t, void* y, std::int64_t n, double mean, double std, std::uint64_t seed, std::uint64_t offset) {
  for (std::int64_t i = 0; i < n; ++i) {
    const auto w = philox::block(seed, offset + static_cast<std::uint64_t>(i / 4));
    const auto p = philox::normal_pair(w[static_cast<std::size_t>(i % 4 / 2 * 2)], w[static_cast<std::size_t>(i % 4 / 2 * 2 + 1)]);
    put(t, y, i, mean + std * p[static_cast<std::size_t>(i % 2)]);
  }
}

}  // namespace mezzo::kernels
