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
  Tensor rest = {};                    // under split u8 (..., 2), the remainders; under kahan bf16, w's shape, the compensations
  std::uint64_t version = 0;           // w's, when w last was what master or rest belong to
  std::array<Tensor, 2> moments = {};  // as states_of() says: made at the first update
  std::array<Tensor, 2> scales = {};   // f32 (blocks), of moments in 8 bits
};

/// One moment of a parameter.
struct Optimizer::State {
  std::string name;  ///< "exp_avg"
  Shape shape;
  Dtype dtype;
  std::int64_t blocks() const;  ///< of 8-bit codes; 0: the moment needs no scales
  std::int64_t bytes() const;
};

/// "param[i]", or the tensor's name.
std::string reported_name(const Tensor& w, std::size_t index);

/// Whether w keeps its f32 elements under `storage`: norm weights, biases and adapters (as modules mark them), and raw tensors of fewer than two
/// dims, do except under pure; what Module::keep() chose always does.
bool keeps_f32(const Tensor& w, Storage storage);

bool covers_its_storage(const Tensor& w);

/// The key of a tensor of the state.
inline std::string state_key(const char* what, std::size_t index) { return std::string(what) + '.' + std::to_string(index); }
inline const char* rest_name(Storage s) { return s == Storage::split ? "remainder" : "compensation"; }

}  // namespace mezzo::optim
