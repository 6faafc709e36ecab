// print.cpp - tensors and shapes as text: small ones whole, long ones shortened.
#include <ostream>

#include <fmt/format.h>

#include "tensor/impl.h"

namespace mezzo {

std::ostream& operator<<(std::ostream& out, const Shape& s) { return out << to_string(s); }

namespace {
constexpr std::int64_t kEdge = 3;      // items shown at either end of a shortened dimension
constexpr std::int64_t kWhole = 1000;  // elements up to which nothing is left out

void print(std::ostream& out, const std::vector<float>& values, const Shape& shape, std::size_t d, std::size_t begin, bool integer) {
  if (d == shape.size()) {
    out << (integer ? fmt::format("{:.0f}", values[begin]) : fmt::format("{:.6g}", values[begin]));
    return;
  }
  std::size_t step = 1;
  for (std::size_t i = d + 1; i < shape.size(); ++i) step *= static_cast<std::size_t>(shape[i]);
  const bool shorten = static_cast<std::int64_t>(values.size()) > kWhole && shape[d] > 2 * kEdge;
  out << '[';
  for (std::int64_t i = 0; i < shape[d]; ++i) {
    if (i) out << (d + 1 == shape.size() ? ", " : ",\n" + std::string(d + 1, ' '));
    if (shorten && i == kEdge) {
      out << "...";
      i = shape[d] - kEdge - 1;
      continue;
    }
    print(out, values, shape, d + 1, begin + static_cast<std::size_t>(i) * step, integer);
  }
  out << ']';
}
}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& t) {
  if (!t.defined()) return out << "Tensor(undefined)";
  print(out, t.to_vector(), t.shape(), 0, 0, !is_floating(t.dtype()));
  out << "\nTensor " << to_string(t.shape()) << ' ' << name(t.dtype());
  if (t.requires_grad()) out << " requires_grad";
  return out;
}

}  // namespace mezzo
