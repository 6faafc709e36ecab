// auto_table.h - from which width of matrices on a bf16 step is not slower than fp32's, at any batch of 1 to 512: `bench_mlp --table true` prints it.
#pragma once

#include <mezzo/runtime.h>

namespace mezzo::train {

struct AutoRow {
  Isa isa;
  int least_width;
};
inline constexpr AutoRow kAutoTable[] = {
    {Isa::avx512_bf16, 64},
};

}  // namespace mezzo::train
