// automatic.h - what "auto" means: a function of the instruction set, of the sizes of a model's matrices, and of the rows that meet them.
#pragma once

#include <string>

#include <mezzo/runtime.h>

namespace mezzo::train {

struct Choice {
  const char* recipe;
  std::string reason;
};
/// For matrices of this width and batches of this many rows (0: not known, taken as wide, as many), on `active`, one of the instruction sets of a CPU
/// that has `detected`.
Choice automatic(double width, double rows, Isa active, Isa detected);
inline Choice automatic(double width, double rows) { return automatic(width, rows, active_isa(), detected_isa()); }

}  // namespace mezzo::train
