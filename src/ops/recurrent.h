// recurrent.h - one direction of one recurrent layer over all time steps, or of one cell over one.
#pragma once

#include <mezzo/tensor.h>
#include "kernels/kernels.h"

namespace mezzo {

/// G: 4 of lstm (i f g o), 3 of gru (r z n), 1. Biases: both or neither.
struct RecurrentWeights {
  Tensor w_ih /*(G H, I)*/, w_hh /*(G H, H)*/, b_ih, b_hh /*(G H)*/;
};
struct RecurrentSteps {
  Tensor y /*(T, B, H)*/, c /*(B, H), lstm: the last step's*/;
};
/// x (T, B, I); h and c (B, H): the states before the first step, zero where undefined. `reverse` begins at the last step; y keeps x's order.
RecurrentSteps recurrent(kernels::Cell, const Tensor& x, const Tensor& h, const Tensor& c, const RecurrentWeights&, bool reverse = false);

}  // namespace mezzo
