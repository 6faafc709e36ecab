// state.h - tensors by name, from one set into another.
#pragma once

#include <mezzo/nn.h>

namespace mezzo::nn {

/// The elements of `from` into the tensors of `into` that have the same name, converted to their dtypes. Error naming every tensor that is missing,
/// unexpected or of another shape, before anything is written.
void load_state(const StateDict& into, const StateDict& from);

}  // namespace mezzo::nn
