// copy.cpp - copies with conversion, contiguous, strided, broadcast and transposed; fill. Each element is rounded once, to nearest even.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/copy.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cstring>

#include "dtype/dispatch.h"
#include "kernels/cpu/conversion.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/ref/convert.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

struct Same {
  template <class D, class V> HWY_INLINE V operator()(D, V x) const { return x; }
};

template <class From, class To> void ConvertLoop(const void* x, void* y, std::int64_t n) {
  Map(n, static_cast<To*>(y), Same(), Elements<From>{static_cast<const From*>(x)});
}

template <class From> Conversion ConvertFrom(Dtype to) {
  return to == f32 ? ConvertLoop<From, float> : to == f16 ? ConvertLoop<From, f16_t> : ConvertLoop<From, bf16_t>;
}
Conversion PickConvert(Dtype from, Dtype to) {
  return from == f32 ? ConvertFrom<float>(to) : from == f16 ? ConvertFrom<f16_t>(to) : ConvertFrom<bf16_t>(to);
}

// ---- transposed tiles ------------------------------------------------------------------------------

// y[c * y_ld + r] = x[r * x_ld + c] for r < rows, c < columns, of elements of U.
template <class U> void TransposeTile(const void* x_p, std::int64_t x_ld, void* y_p, std::int64_t y_ld, std::int64_t rows, std::int64_t columns) {
  const U* x = static_cast<const U*>(x_p);
  U* y = static_cast<U*>(y_p);
  std::int64_t whole_rows = 0, whole_columns = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int kBlock = 16 / sizeof(U);
  const hn::FixedTag<U, kBlock> d;
  whole_rows = rows / kBlock * kBlock;
  whole_columns = columns / kBlock * kBlock;
  for (std::int64_t c = 0; c < whole_columns; c += kBlock) {
    for (std::int64_t r = 0; r < whole_rows; r += kBlock) {
      hn::VFromD<decltype(d)> v[kBlock], w[kBlock];
      for (int i = 0; i < kBlock; ++i) v[i] = hn::LoadU(d, x + (r + i) * x_ld + c);
      for (int step = 1; step < kBlock; step *= 2) {  // each a perfect shuffle of the rows; all of them together transpose
        for (int i = 0; i < kBlock / 2; ++i) {
          w[2 * i] = hn::InterleaveLower(d, v[i], v[i + kBlock / 2]);
          w[2 * i + 1] = hn::InterleaveUpper(d, v[i], v[i + kBlock / 2]);
        }
        for (int i = 0; i < kBlock; ++i) v[i] = w[i];
      }
      for (int i = 0; i < kBlock; ++i) hn::StoreU(v[i], d, y + (c + i) * y_ld + r);
    }
  }
#endif
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r) y[c * y_ld + r] = x[r * x_ld + c];
  }
}

using TileTranspose = void (*)(const void* x, std::int64_t x_ld, void* y, std::int64_t y_ld, std::int64_t rows, std::int64_t columns);

TileTranspose PickTranspose(std::size_t bytes) {
  switch (bytes) {
    case 1: return TransposeTile<std::uint8_t>;
    case 2: return TransposeTile<std::uint16_t>;
    case 4: return TransposeTile<std::uint32_t>;
    default: return TransposeTile<std::uint64_t>;
  }
}

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickConvert);
HWY_EXPORT(PickTranspose);

template <class T> void move_loop(const void* x, void* y, std::int64_t n) { std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(T)); }

template <class From, class To> void cast_loop(const void* x, void* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) static_cast<To*>(y)[i] = ref::cast<To>(static_cast<const From*>(x)[i]);
}

}  // namespace

Conversion conversion(Dtype from, Dtype to) {
  const auto vectorised = [](Dtype t) { return t == f32 || is_16bit(t); };
  if (from != to && vectorised(from) && vectorised(to)) return HWY_DYNAMIC_DISPATCH(PickConvert)(from, to);
  return dispatch_all(from, "convert", [&]<class From>() -> Conversion {
    return dispatch_all(to, "convert", [&]<class To>() -> Conversion {
      if constexpr (std::is_same_v<From, To>) return move_loop<From>;
      else return cast_loop<From, To>;
    });
  });
}

namespace {

void fill_elements(void* y, std::int64_t n, const void* element, std::size_t bytes) {
  const auto run = [&]<class U>(U value) {
    std::memcpy(&value, element, sizeof(U));
    std::fill_n(static_cast<U*>(y), n, value);
  };
  switch (bytes) {
    case 1: return run(std::uint8_t());
    case 2: return run(std::uint16_t());
    case 4: return run(std::uint32_t());
    default: return run(std::uint64_t());
  }
}

// A copy whose innermost dim in y is not the one in x: between the two, tiles of a plane.
struct Transposition {
  Strided outer;                       // the other dims; operands y, x
  std::int64_t rows = 0, columns = 0;  // x is (rows, columns) with contiguous columns, y (columns, rows) with contiguous rows
  std::int64_t x_ld = 0, y_ld = 0;
};

// Whether the collapsed index space is one; planes too narrow for tiles are not worth it.
bool find_transposition(const Strided& s, Transposition& t) {
  constexpr std::int64_t kNarrow = 8;
  const int last = s.dims - 1;
  if (s.stride[0][last] != 1 || s.stride[1][last] <= 1 || s.size[last] < kNarrow) return false;
  for (int k = 0; k < last; ++k) {
    if (s.stride[1][k] != 1 || s.size[k] < kNarrow) continue;
    t.rows = s.size[last];
    t.columns = s.size[k];
    t.x_ld = s.stride[1][last];
    t.y_ld = s.stride[0][k];
    t.outer.operands = 2;
    for (int d = 0; d < last; ++d) {
      if (d == k) continue;
      t.outer.size[t.outer.dims] = s.size[d];
      for (int o = 0; o < 2; ++o) t.outer.stride[o][t.outer.dims] = s.stride[o][d];
      ++t.outer.dims;
    }
    t.outer = collapse(t.outer);
    return true;
  }
  return false;
}

// Through a square of y's dtype that stays in L2: both x and y are then walked in runs long enough for the hardware to fetch ahead.
void copy_transposed(Queue& queue, const Transposition& t, Dtype from, Dtype to, const void* x, void* y) {
  const std::size_t x_bytes = size_of(from), y_bytes = size_of(to);
  const Conversion convert = conversion(from, to);
  const auto transpose = HWY_DYNAMIC_DISPATCH(PickTranspose)(y_bytes);
  std::int64_t edge = y_bytes == 8 ? 128 : 256, down, across, tiles;
  for (;; edge /= 2) {  // as large as leaves work for all threads
    down = (t.rows + edge - 1) / edge;
    across = (t.columns + edge - 1) / edge;
    tiles = t.outer.numel() * down * across;
    if (edge == 32 || tiles >= 4 * num_threads()) break;
  }
  const std::int64_t ld = edge + static_cast<std::int64_t>(kAlignment / y_bytes);  // rows a power of two apart would meet in few sets of L1
  parallel_for(tiles, std::max<std::int64_t>(1, kGrain / (edge * edge)), [&](std::int64_t begin, std::int64_t end) {
    const Block workspace = queue.scratch(static_cast<std::size_t>(edge * ld) * y_bytes);
    auto* square = workspace.as<std::byte>();
    for (std::int64_t i = begin; i < end; ++i) {
      const Odometer plane(t.outer, i / (down * across));
      const std::int64_t row = i / across % down * edge, column = i % across * edge;
      const std::int64_t rows = std::min(edge, t.rows - row), columns = std::min(edge, t.columns - column);
      const void* from_p = at(x, plane.offset(1) + row * t.x_ld + column, x_bytes);
      for (std::int64_t r = 0; r < rows; ++r) convert(at(from_p, r * t.x_ld, x_bytes), at(square, r * ld, y_bytes), columns);
      transpose(square, ld, at(y, plane.offset(0) + column * t.y_ld + row, y_bytes), t.y_ld, rows, columns);
    }
  });
}

}  // namespace

void copy(Queue& queue, Dtype from, Dtype to, const void* x, void* y, const Strided& space) {
  const std::size_t x_bytes = size_of(from), y_bytes = size_of(to);
  Transposition t;
  if (space.numel() > 0 && find_transposition(collapse(space), t)) return copy_transposed(queue, t, from, to, x, y);
  const Conversion span = conversion(from, to);
  for_each_span(space, {y_bytes, x_bytes}, {y, const_cast<void*>(x)}, [&](const Span& s) {
    if (s.splat != 1) return span(s.p[1], s.p[0], s.n);
    std::uint64_t element = 0;
    span(s.p[1], &element, 1);
    fill_elements(s.p[0], s.n, &element, y_bytes);
  });
}

void convert(Queue&, Dtype from, Dtype to, const void* x, void* y, std::int64_t n) {
  const std::size_t x_bytes = size_of(from), y_bytes = size_of(to);
  const Conversion span = conversion(from, to);
  parallel_for(
      n, kGrain, [&](std::int64_t begin, std::int64_t end) { span(at(x, begin, x_bytes), at(y, begin, y_bytes), end - begin); }, kAlign);
}

void fill(Queue&, Dtype dtype, double value, void* y, const Strided& space) {
  const std::size_t bytes = size_of(dtype);
  std::uint64_t element = 0;
  conversion(f64, dtype)(&value, &element, 1);
  for_each_span(space, {bytes}, {y}, [&](const Span& s) { fill_elements(s.p[0], s.n, &element, bytes); });
}

}  // namespace mezzo::kernels
#endif
