// automatic.h - what "auto" means: a function of the instruction set and of the sizes of a model's matrices.
#pragma once

#include <string>

#include <mezzo/runtime.h>

namespace mezzo::train {

struct Choice {
  const char* recipe;
  std::string reason;
};
/// For matrices of this width (0: not known, taken as wide), on `active`, one of the instruction sets of a CPU that has `detected`.
Choice automatic(double width, Isa active, Isa detected);
inline Choice automatic(double width) { return automatic(width, active_isa(), detected_isa()); }

}  // namespace mezzo::train
