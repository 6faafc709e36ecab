// conv.h - an element of a convolution and of its two gradients, as the definition says. Layouts as in kernels.h: channels-last activations.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/kernels.h"

namespace mezzo::kernels::ref {

/// An element, and the sum of the sizes of its terms, which rounding errors are proportional to.
struct ConvSum {
  double value = 0, size = 0;
  void add(double term) {
    value += term;
    size += std::abs(term);
  }
};

/// Calls f(image, pixel of x, pixel of y, tap) wherever a tap lies inside of x.
template <class F> void each_tap(const Conv& c, F f) {
  for (std::int64_t n = 0; n < c.n; ++n)
    for (std::int64_t oz = 0; oz < c.out[0]; ++oz)
      for (std::int64_t oy = 0; oy < c.out[1]; ++oy)
        for (std::int64_t ox = 0; ox < c.out[2]; ++ox)
          for (std::int64_t tz = 0; tz < c.kernel[0]; ++tz)
            for (std::int64_t ty = 0; ty < c.kernel[1]; ++ty)
              for (std::int64_t tx = 0; tx < c.kernel[2]; ++tx) {
                const std::int64_t z = oz * c.stride[0] + tz * c.dilation[0] - c.padding[0], y = oy * c.stride[1] + ty * c.dilation[1] - c.padding[1],
                                   x = ox * c.stride[2] + tx * c.dilation[2] - c.padding[2];
                if (z < 0 || y < 0 || x < 0 || z >= c.in[0] || y >= c.in[1] || x >= c.in[2]) continue;
                f(n, (z * c.in[1] + y) * c.in[2] + x, (oz * c.out[1] + oy) * c.out[2] + ox, (tz * c.kernel[1] + ty) * c.kernel[2] + tx);
              }
}

/// f(i, j, k) for every product x[i] w[j] that belongs to y[k]: all three of the convolution's forms are sums of such terms.
template <class F> void each_term(const Conv& c, F f) {
  const std::int64_t in = c.in[0] * c.in[1] * c.in[2], out = c.out[0] * c.out[1] * c.out[2], taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
  const std::int64_t cg = c.c / c.groups, og = c.o / c.groups;
  each_tap(c, [&](std::int64_t n, std::int64_t from, std::int64_t to, std::int64_t tap) {
    for (std::int64_t o = 0; o < c.o; ++o)
      for (std::int64_t k = 0; k < cg; ++k) f((n * in + from) * c.c + o / og * cg + k, (o * cg + k) * taps + tap, (n * out + to) * c.o + o);
  });
}

}  // namespace mezzo::kernels::ref
