// reducer.h - the loops of a reduction, chosen once a kernel call.
#pragma once

#include <cstdint>

namespace mezzo::kernels {

struct Reducer {
  /// n contiguous elements to one number.
  float (*run)(const void* x, std::int64_t n);
  /// out (columns), combined with the rows of x (rows, columns), which begin ld elements apart.
  void (*rows)(const void* x, std::int64_t ld, std::int64_t rows, std::int64_t columns, float* out);
};

}  // namespace mezzo::kernels
