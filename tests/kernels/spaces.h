// spaces.h - random strided index spaces, and a plain walk through them that shares nothing with the kernels' own.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "kernels/kernels.h"

namespace mezzo::test {

using Offsets = std::array<std::int64_t, 4>;

/// f(offsets) for every element, the last dim fastest.
template <class F> void walk(const kernels::Strided& s, F f) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(s.dims), 0);
  for (std::int64_t i = 0, n = s.numel(); i < n; ++i) {
    Offsets offsets{};
    for (int d = 0; d < s.dims; ++d) {
      for (int k = 0; k < s.operands; ++k) offsets[k] += index[d] * s.stride[k][d];
    }
    f(offsets);
    for (int d = s.dims - 1; d >= 0 && ++index[d] == s.size[d]; --d) index[d] = 0;
  }
}

/// Elements that an operand reaches, from its first one on.
inline std::int64_t reach(const kernels::Strided& s, int operand) {
  if (s.numel() == 0) return 0;
  std::int64_t last = 0;
  for (int d = 0; d < s.dims; ++d) last += (s.size[d] - 1) * s.stride[operand][d];
  return last + 1;
}

inline std::string text(const kernels::Strided& s) {
  std::string out = "sizes";
  for (int d = 0; d < s.dims; ++d) out += fmt::format(" {}", s.size[d]);
  for (int k = 0; k < s.operands; ++k) {
    out += fmt::format("; strides {}:", k);
    for (int d = 0; d < s.dims; ++d) out += fmt::format(" {}", s.stride[k][d]);
  }
  return out;
}

inline kernels::Strided line(std::int64_t n, int operands) {
  kernels::Strided s;
  s.dims = 1;
  s.operands = operands;
  s.size[0] = n;
  for (int k = 0; k < operands; ++k) s.stride[k][0] = 1;
  return s;
}

/// Up to five dims of at most `longest`; each operand a permuted view, sometimes with gaps; the inputs broadcast along some dims.
class RandomSpaces {
 public:
  RandomSpaces(unsigned seed, int operands) : engine_(seed), operands_(operands) {}
  kernels::Strided operator()(std::int64_t longest, std::int64_t elements = 30000) {
    for (;;) {
      kernels::Strided s;
      s.operands = operands_;
      s.dims = static_cast<int>(below(6));
      for (int d = 0; d < s.dims; ++d) s.size[d] = below(12) == 0 ? below(2) : 1 + below(longest);
      if (s.numel() > elements) continue;
      for (int k = 0; k < operands_; ++k) set_strides(s, k);
      return s;
    }
  }

 private:
  std::int64_t below(std::int64_t n) { return std::uniform_int_distribution<std::int64_t>(0, n - 1)(engine_); }
  void set_strides(kernels::Strided& s, int operand) {
    std::vector<int> order(static_cast<std::size_t>(s.dims));
    std::iota(order.begin(), order.end(), 0);
    if (below(2) == 0) std::shuffle(order.begin(), order.end(), engine_);
    std::int64_t stride = below(5) == 0 ? 2 : 1;
    for (auto d = order.rbegin(); d != order.rend(); ++d) {
      s.stride[operand][*d] = stride;
      stride *= s.size[*d] + (below(8) == 0 ? 3 : 0);
      if (operand > 0 && below(4) == 0) s.stride[operand][*d] = 0;
    }
  }

  std::mt19937 engine_;
  int operands_;
};

}  // namespace mezzo::test
