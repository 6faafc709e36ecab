// reduce.cpp - sums, products and maxima along the middle of (outer, n, inner). f32, f16, bf16: accumulated in f32; others: ref/.
//
// The tree is fixed by the sizes and the vector length alone. Along contiguous elements: chunks of 4096, each in four vector accumulators.
// Along rows (inner > 1): rows are streamed, four at a time, into an accumulator for each column, and chunks of rows are joined likewise.
// Partial results are reduced by the same code again until one is left.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/reduce.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "dtype/dispatch.h"
#include "kernels/cpu/convert-inl.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/reducer.h"
#include "kernels/enumerate.h"
#include "kernels/ref/reduce.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

template <Reduce op, class V> HWY_INLINE V Combine(V a, V b) {
  if constexpr (op == Reduce::amax) return hn::IfThenElse(hn::Or(hn::Gt(a, b), hn::IsNaN(a)), a, b);  // NaN if either is
  else if constexpr (op == Reduce::prod) return hn::Mul(a, b);
  else return hn::Add(a, b);
}

template <Reduce op, class V> HWY_INLINE V Term(V x) {
  if constexpr (op == Reduce::sum_abs) return hn::Abs(x);
  else if constexpr (op == Reduce::sum_squares) return hn::Mul(x, x);
  else return x;
}

/// n contiguous elements to one number.
template <Reduce op, class T> float ReduceRun(const void* x_p, std::int64_t n) {
  const hn::ScalableTag<float> d;
  using V = hn::VFromD<decltype(d)>;
  const T* x = static_cast<const T*>(x_p);
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const V none = hn::Set(d, ref::identity<op, float>());
  V a0 = none, a1 = none, a2 = none, a3 = none;
  std::int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a0 = Combine<op>(a0, Term<op>(LoadF32(d, x + i)));
    a1 = Combine<op>(a1, Term<op>(LoadF32(d, x + i + lanes)));
    a2 = Combine<op>(a2, Term<op>(LoadF32(d, x + i + 2 * lanes)));
    a3 = Combine<op>(a3, Term<op>(LoadF32(d, x + i + 3 * lanes)));
  }
  for (; i + lanes <= n; i += lanes) a0 = Combine<op>(a0, Term<op>(LoadF32(d, x + i)));
  if (i < n) {
    const auto left = static_cast<std::size_t>(n - i);
    a1 = Combine<op>(a1, hn::IfThenElse(hn::FirstN(d, left), Term<op>(LoadF32(d, x + i, left)), none));
  }
  HWY_ALIGN float lane[hn::MaxLanes(d)];
  hn::Store(Combine<op>(Combine<op>(a0, a1), Combine<op>(a2, a3)), d, lane);
  for (std::int64_t width = lanes / 2; width > 0; width /= 2) {
    for (std::int64_t k = 0; k < width; ++k) lane[k] = ref::combine<op>(lane[k], lane[k + width]);
  }
  return lane[0];
}

// Column vectors of 1 or 4 rows of x as one; `left`: nothing, or the number of columns left.
template <Reduce op, int kRows, class D, class T, class... Left> HWY_INLINE hn::VFromD<D> JoinRows(D d, const T* x, std::int64_t ld, Left... left) {
  const auto v0 = Term<op>(LoadF32(d, x, left...));
  if constexpr (kRows == 1) return v0;
  const auto v1 = Term<op>(LoadF32(d, x + ld, left...)), v2 = Term<op>(LoadF32(d, x + 2 * ld, left...)),
             v3 = Term<op>(LoadF32(d, x + 3 * ld, left...));
  return Combine<op>(Combine<op>(v0, v1), Combine<op>(v2, v3));
}

template <Reduce op, int kRows, class T> HWY_INLINE void AddRows(const T* x, std::int64_t ld, std::int64_t columns, float* out) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t c = 0;
  for (; c + lanes <= columns; c += lanes) hn::StoreU(Combine<op>(hn::LoadU(d, out + c), JoinRows<op, kRows>(d, x + c, ld)), d, out + c);
  if (c == columns) return;
  const auto left = static_cast<std::size_t>(columns - c);
  StoreF32(Combine<op>(LoadF32(d, out + c, left), JoinRows<op, kRows>(d, x + c, ld, left)), d, out + c, left);
}

/// out[c] = out[c] combined with the rows of x (rows, columns), ld elements apart.
template <Reduce op, class T> void ReduceRows(const void* x_p, std::int64_t ld, std::int64_t rows, std::int64_t columns, float* out) {
  const T* x = static_cast<const T*>(x_p);
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) AddRows<op, 4>(x + r * ld, ld, columns, out);
  for (; r < rows; ++r) AddRows<op, 1>(x + r * ld, ld, columns, out);
}

template <class T> Reducer ReducerOf(Reduce op) {
  return with_constant(op, [](auto which) { return Reducer{ReduceRun<decltype(which)::value, T>, ReduceRows<decltype(which)::value, T>}; });
}
Reducer PickReducer(Reduce op, Dtype t) { return t == f32 ? ReducerOf<float>(op) : t == f16 ? ReducerOf<f16_t>(op) : ReducerOf<bf16_t>(op); }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickReducer);

constexpr std::int64_t kChunk = 4096;           // contiguous elements whose sum is one partial result
constexpr std::int64_t kChunkElements = 65536;  // rows are cut into chunks of about this size, of 256 rows at least
constexpr std::int64_t kStrip = 1024;           // columns whose accumulators stay in L1
constexpr std::int64_t kNarrow = 64;            // below, several rows are taken as one wide one

Reducer reducer(Reduce op, Dtype t) { return HWY_DYNAMIC_DISPATCH(PickReducer)(op, t); }

// What joins partial results.
Reduce joining(Reduce op) { return op == Reduce::prod || op == Reduce::amax ? op : Reduce::sum; }

float nothing(Reduce op) {
  return with_constant(op, [](auto which) { return ref::identity<which(), float>(); });
}

// (rows, columns) of few columns: whole vectors of several rows each, then these rows one by one.
void reduce_narrow(const Reducer& reducer, const Reducer& join, float none, const void* x, std::size_t bytes, std::int64_t rows, std::int64_t columns,
                   float* out) {
  constexpr std::int64_t kWide = 512;
  float wide[kWide];
  const std::int64_t folded = kWide / columns, whole = rows / folded;
  if (whole > 1) {
    std::fill_n(wide, folded * columns, none);
    reducer.rows(x, folded * columns, whole, folded * columns, wide);
    join.rows(wide, columns, folded, columns, out);
    x = at(x, whole * folded * columns, bytes);
    rows -= whole * folded;
  }
  reducer.rows(x, columns, rows, columns, out);
}

// y (outer, inner) = x (outer, n, inner) reduced.
void reduce_f32(Queue& queue, Reduce op, Dtype dtype, const void* x, float* y, std::int64_t outer, std::int64_t n, std::int64_t inner) {
  const std::size_t bytes = size_of(dtype);
  const Reducer reduce = reducer(op, dtype), join = reducer(joining(op), f32);
  const float none = nothing(op);
  const std::int64_t chunk = inner == 1 ? kChunk : std::max<std::int64_t>(256, kChunkElements / inner);
  const std::int64_t chunks = std::max<std::int64_t>(1, (n + chunk - 1) / chunk), strips = (inner + kStrip - 1) / kStrip;
  Block workspace;
  float* partial = y;  // (outer, chunks, inner)
  if (chunks > 1) {
    workspace = queue.scratch(static_cast<std::size_t>(outer * chunks * inner) * sizeof(float));
    partial = workspace.as<float>();
  }
  const std::int64_t unit = std::max<std::int64_t>(1, std::min(n, chunk) * std::min(inner, kStrip));  // elements
  parallel_for(outer * chunks * strips, std::max<std::int64_t>(1, kGrain / unit), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t strip = i % strips, row = i / strips, first = row % chunks * chunk;  // row of partial
      const std::int64_t count = std::min(chunk, n - first), column = strip * kStrip, columns = std::min(kStrip, inner - column);
      const void* from = at(x, (row / chunks * n + first) * inner + column, bytes);
      float* to = partial + row * inner + column;
      if (inner == 1) {
        *to = reduce.run(from, count);
        continue;
      }
      std::fill_n(to, columns, none);
      if (inner < kNarrow) reduce_narrow(reduce, join, none, from, bytes, count, inner, to);
      else reduce.rows(from, inner, count, columns, to);
    }
  });
  if (chunks > 1) reduce_f32(queue, joining(op), f32, partial, y, outer, chunks, inner);
}

Strided line(std::int64_t n, int operands) {
  Strided s;
  s.dims = 1;
  s.operands = operands;
  s.size[0] = n;
  for (int k = 0; k < operands; ++k) s.stride[k][0] = 1;
  return s;
}

// The dtypes that ref/ serves. Results are f64, or i64 of integers that are not scaled.
template <Reduce op, class T, class Result>
void reduce_plain(const T* x, Result* y, std::int64_t outer, std::int64_t n, std::int64_t inner, double scale) {
  parallel_for(outer * inner, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, n)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto sum = ref::reduce<op, ref::Accumulator<T>>(x + i / inner * n * inner + i % inner, n, inner);
      if constexpr (std::is_integral_v<Result>) y[i] = sum;
      else y[i] = static_cast<Result>(sum) * scale;
    }
  });
}

}  // namespace

void reduce(Queue& queue, Reduce op, Dtype from, Dtype to, const void* x, void* y, std::int64_t outer, std::int64_t n, std::int64_t inner,
            double scale) {
  const std::int64_t results = outer * inner;
  if (results == 0) return;
  const Dtype sum_dtype = from == f32 || is_16bit(from) ? f32 : from == f64 || scale != 1 ? f64 : i64;
  Block workspace;
  void* sums = y;
  if (to != sum_dtype) {
    workspace = queue.scratch(static_cast<std::size_t>(results) * size_of(sum_dtype));
    sums = workspace.as<void>();
  }
  if (sum_dtype == f32) {
    reduce_f32(queue, op, from, x, static_cast<float*>(sums), outer, n, inner);
    if (scale != 1) binary_scalar(queue, Binary::mul, f32, sums, scale, false, sums, results);
  } else {
    with_constant(op, [&](auto which) {
      constexpr Reduce kOp = decltype(which)::value;
      dispatch_all(from, "reduce", [&]<class T>() {
        const auto* from_x = static_cast<const T*>(x);
        if constexpr (std::is_integral_v<T>) {
          if (sum_dtype == i64) return reduce_plain<kOp>(from_x, static_cast<std::int64_t*>(sums), outer, n, inner, scale);
        }
        if constexpr (std::is_same_v<T, double> || std::is_integral_v<T>)
          reduce_plain<kOp>(from_x, static_cast<double*>(sums), outer, n, inner, scale);
      });
    });
  }
  if (to != sum_dtype) convert(queue, sum_dtype, to, sums, y, results);
}

void sum_rows(Queue& queue, Dtype dtype, const void* x, float* sums, std::int64_t rows, std::int64_t c, bool accumulate) {
  if (!accumulate) return reduce(queue, Reduce::sum, dtype, f32, x, sums, 1, rows, c);
  const Block workspace = queue.scratch(static_cast<std::size_t>(c) * sizeof(float));
  reduce(queue, Reduce::sum, dtype, f32, x, workspace.as<float>(), 1, rows, c);
  binary(queue, Binary::add, f32, sums, workspace.as<float>(), sums, line(c, 3));
}

}  // namespace mezzo::kernels
#endif
