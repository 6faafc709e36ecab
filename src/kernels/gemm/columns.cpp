// columns.cpp - convolutions as products: columns of a block of places, times weights, group by group.
//
// The gradient of x is a convolution too: each pixel of x gathers from y through the taps turned round, so nothing is scattered, and each
// element is accumulated in f32 by one product and rounded once. (With a stride most of those taps see nothing: this is the way that always
// works, not the fastest.)
#include "kernels/gemm/columns.h"

#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "kernels/cpu/layout.h"

namespace mezzo::kernels {
namespace {

using Sizes = std::array<std::int64_t, 3>;

constexpr std::int64_t kBlockElements = 1 << 18;  // of columns at a time: they stay in L2

std::int64_t product(const Sizes& s) { return s[0] * s[1] * s[2]; }

/// A matrix of weights with its dimensions in another order: y (sizes) contiguous, x with these strides.
void reorder(Queue& queue, Dtype t, const void* x, void* y, std::array<std::int64_t, 4> sizes, std::array<std::int64_t, 4> strides) {
  Strided s;
  s.dims = 4;
  s.operands = 2;
  std::int64_t step = 1;
  for (int d = 3; d >= 0; --d) {
    s.size[d] = sizes[d];
    s.stride[0][d] = step;
    s.stride[1][d] = strides[d];
    step *= sizes[d];
  }
  copy(queue, t, t, x, y, s);
}

/// body(begin, end, columns, ld) for blocks of places; columns (end - begin, taps * width), rows ld elements apart. One tap that sees each
/// place's own pixel needs no copy.
template <class Body> void by_blocks(Queue& queue, const Conv& c, See see, const void* activation, std::int64_t channels, std::int64_t first,
                                     std::int64_t width, Body body) {
  const std::size_t bytes = size_of(c.dtype);
  const std::int64_t taps = product(c.kernel), places = c.n * product(see == See::forward ? c.out : c.in), row = taps * width;
  if (taps == 1 && c.in == c.out && product(c.stride) == 1 && c.padding == Sizes{})
    return body(std::int64_t{0}, places, at(activation, first, bytes), channels);
  const std::int64_t block = std::min(places, std::max<std::int64_t>(64, kBlockElements / row));
  const Block columns = queue.scratch(static_cast<std::size_t>(block * row) * bytes);
  for (std::int64_t begin = 0; begin < places; begin += block) {
    const std::int64_t end = std::min(places, begin + block);
    parallel_for(end - begin, std::max<std::int64_t>(1, kGrain / row), [&](std::int64_t b, std::int64_t e) {
      gather_columns(c, see, activation, bytes, first, width, begin + b, begin + e, at(columns.as<void>(), b * row, bytes));
    });
    body(begin, end, static_cast<const void*>(columns.as<void>()), row);
  }
}

}  // namespace

void gather_columns(const Conv& c, See see, const void* activation, std::size_t bytes, std::int64_t first, std::int64_t width, std::int64_t begin,
                    std::int64_t end, void* columns) {
  const Sizes &places = see == See::forward ? c.out : c.in, &seen = see == See::forward ? c.in : c.out;
  const std::int64_t channels = see == See::forward ? c.c : c.o;
  const std::size_t run = static_cast<std::size_t>(width) * bytes;
  // The pixel that a tap sees along dimension d, or -1.
  const auto sees = [&](int d, std::int64_t place, std::int64_t tap) {
    if (see == See::forward) {
      const std::int64_t at = place * c.stride[d] - c.padding[d] + tap * c.dilation[d];
      return at >= 0 && at < seen[d] ? at : -1;
    }
    const std::int64_t at = place + c.padding[d] - tap * c.dilation[d];
    return at >= 0 && at % c.stride[d] == 0 && at / c.stride[d] < seen[d] ? at / c.stride[d] : -1;
  };
  auto* out = static_cast<std::byte*>(columns);
  for (std::int64_t place = begin; place < end; ++place) {
    const std::int64_t px = place % places[2], py = place / places[2] % places[1], pz = place / places[2] / places[1] % places[0],
                       image = place / product(places);
    for (std::int64_t tz = 0; tz < c.kernel[0]; ++tz) {
      const std::int64_t z = sees(0, pz, tz);
      for (std::int64_t ty = 0; ty < c.kernel[1]; ++ty) {
        const std::int64_t y = z < 0 ? -1 : sees(1, py, ty);
        for (std::int64_t tx = 0; tx < c.kernel[2]; ++tx, out += run) {
          const std::int64_t x = y < 0 ? -1 : sees(2, px, tx);
          if (x < 0) std::memset(out, 0, run);
          else std::memcpy(out, at(activation, (((image * seen[0] + z) * seen[1] + y) * seen[2] + x) * channels + first, bytes), run);
        }
      }
    }
  }
}

void columns_conv(Queue& queue, const Conv& c, const void* x, const void* w, const void* bias, void* y) {
  const std::int64_t taps = product(c.kernel), cg = c.c / c.groups, og = c.o / c.groups;
  const std::size_t bytes = size_of(c.dtype), wide = c.dtype == f64 ? sizeof(double) : sizeof(float);
  const Block by_tap = queue.scratch(static_cast<std::size_t>(c.o * taps * cg) * bytes);  // (O, taps, C / groups)
  reorder(queue, c.dtype, w, by_tap.as<void>(), {1, c.o, taps, cg}, {0, cg * taps, 1, taps});
  for (std::int64_t g = 0; g < c.groups; ++g) {
    by_blocks(queue, c, See::forward, x, c.c, g * cg, cg, [&](std::int64_t begin, std::int64_t end, const void* columns, std::int64_t ld) {
      Gemm p;
      p.m = end - begin, p.n = og, p.k = taps * cg;
      p.a = p.b = c.dtype;
      p.c = c.result;
      p.trans_b = true;
      p.lda = ld, p.ldb = taps * cg, p.ldc = c.o;
      if (bias) p.bias = at(bias, g * og, wide), p.bias_dtype = c.dtype == f64 ? f64 : f32;
      gemm(queue, p, columns, at(by_tap.as<void>(), g * og * taps * cg, bytes), at(y, begin * c.o + g * og, size_of(c.result)));
    });
  }
}

void columns_conv_input_grad(Queue& queue, const Conv& c, const void* w, const void* dy, void* dx) {
  const std::int64_t taps = product(c.kernel), cg = c.c / c.groups, og = c.o / c.groups;
  const std::size_t bytes = size_of(c.dtype);
  const Block by_tap = queue.scratch(static_cast<std::size_t>(c.o * taps * cg) * bytes);  // (groups, taps, O / groups, C / groups)
  reorder(queue, c.dtype, w, by_tap.as<void>(), {c.groups, taps, og, cg}, {og * cg * taps, 1, cg * taps, taps});
  for (std::int64_t g = 0; g < c.groups; ++g) {
    by_blocks(queue, c, See::adjoint, dy, c.o, g * og, og, [&](std::int64_t begin, std::int64_t end, const void* columns, std::int64_t ld) {
      Gemm p;
      p.m = end - begin, p.n = cg, p.k = taps * og;
      p.a = p.b = c.dtype;
      p.c = c.result;
      p.lda = ld, p.ldb = cg, p.ldc = c.c;
      gemm(queue, p, columns, at(by_tap.as<void>(), g * og * taps * cg, bytes), at(dx, begin * c.c + g * cg, size_of(c.result)));
    });
  }
}

void columns_conv_weight_grad(Queue& queue, const Conv& c, const void* x, const void* dy, void* dw, bool accumulate) {
  const std::int64_t taps = product(c.kernel), cg = c.c / c.groups, og = c.o / c.groups, n = c.o * taps * cg;
  const Dtype wide = c.dtype == f64 ? f64 : f32;
  const std::size_t bytes = size_of(c.dtype);
  const Block by_tap = queue.scratch(static_cast<std::size_t>(n) * size_of(wide));  // (O, taps, C / groups)
  for (std::int64_t g = 0; g < c.groups; ++g) {
    by_blocks(queue, c, See::forward, x, c.c, g * cg, cg, [&](std::int64_t begin, std::int64_t end, const void* columns, std::int64_t ld) {
      Gemm p;
      p.m = og, p.n = taps * cg, p.k = end - begin;
      p.a = p.b = c.dtype;
      p.c = wide;
      p.trans_a = true;
      p.lda = c.o, p.ldb = ld, p.ldc = taps * cg;
      p.beta = begin == 0 ? 0 : 1;
      gemm(queue, p, at(dy, begin * c.o + g * og, bytes), columns, at(by_tap.as<void>(), g * og * taps * cg, size_of(wide)));
    });
  }
  if (!accumulate) return reorder(queue, wide, by_tap.as<void>(), dw, {1, c.o, cg, taps}, {0, taps * cg, 1, cg});
  Strided s;
  s.dims = 3;
  s.operands = 3;
  s.size = {c.o, cg, taps};
  s.stride[0] = s.stride[1] = {cg * taps, taps, 1};
  s.stride[2] = {taps * cg, 1, cg};
  binary(queue, Binary::add, wide, dw, by_tap.as<void>(), dw, s);
}

}  // namespace mezzo::kernels
