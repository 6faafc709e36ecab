// slot.h - what an optimizer keeps for one parameter.
#pragma once

#include <array>

#include <mezzo/optim.h>

namespace mezzo::optim {

struct Optimizer::Slot {
  Tensor w;
  std::size_t group = 0;
  Dtype dtype = Dtype::f32;            // of w, as the optimizer left it
  std::int64_t step = 0;               // updates of this parameter: Adam's bias correction of a late starter begins at 1
  Tensor master = {};                  // f32, w's shape: the truth of a 16-bit w under Storage::master
  std::uint64_t version = 0;           // w's, when w last was what master rounds to
  std::array<Tensor, 2> moments = {};  // f32 (f64 for f64), w's shape: made at the first update
};

/// "param[i]", or the tensor's name.
std::string reported_name(const Tensor& w, std::size_t index);

}  // namespace mezzo::optim
