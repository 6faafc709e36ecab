// isa.h - keeps Highway's choice of instruction set at or below active_isa().
#pragma once

namespace mezzo::kernels {

/// Once per process; before the first kernel runs.
void cap_highway();

}  // namespace mezzo::kernels
