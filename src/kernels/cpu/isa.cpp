// isa.cpp - the one place where Highway hears of MEZZO_ISA.
#include "kernels/cpu/isa.h"

#include <hwy/targets.h>

#include <mezzo/runtime.h>

namespace mezzo::kernels {
namespace {

// Everything stronger than `isa`. Highway has no target for bf16 instructions: they come with AVX3.
std::int64_t targets_above(Isa isa) {
  switch (isa) {
    case Isa::scalar: return HWY_SSSE3 | HWY_SSE4 | HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL;
    case Isa::avx2: return HWY_AVX3 | HWY_AVX3_DL;
    case Isa::avx512:
    case Isa::avx512_bf16: break;
  }
  return 0;
}

}  // namespace

void cap_highway() {
  static const bool done = [] {
    hwy::DisableTargets(targets_above(active_isa()));
    // Chosen now: a pointer fetched before the first dispatch would ask the processor at each call, which in a virtual machine takes 20 us.
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return true;
  }();
  (void)done;
}

}  // namespace mezzo::kernels
