// auto_table.h - from which width of matrices and which number of rows on a bf16 step is not slower than fp32's: `bench_mlp` shows it.
#pragma once

#include <mezzo/runtime.h>

namespace mezzo::train {

struct AutoRow {
  Isa isa;
  int least_width, least_rows;
};
inline constexpr AutoRow kAutoTable[] = {
    {Isa::avx512_bf16, 64, 16},
};

}  // namespace mezzo::train
