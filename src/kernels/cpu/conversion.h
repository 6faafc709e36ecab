// conversion.h - the loop that converts contiguous elements, chosen once a kernel call.
#pragma once

#include <cstdint>

#include <mezzo/dtype.h>

namespace mezzo::kernels {

/// y[i] = x[i] converted, i < n, on the calling thread.
using Conversion = void (*)(const void* x, void* y, std::int64_t n);
Conversion conversion(Dtype from, Dtype to);

}  // namespace mezzo::kernels
