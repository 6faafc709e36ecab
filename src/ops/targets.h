// targets.h - checks of class targets, shared by the losses.
#pragma once

#include <mezzo/tensor.h>

namespace mezzo {

/// Error unless each target (contiguous, i32 or i64) is in [0, v) or ignore_index. Returns how many carry loss.
std::int64_t check_targets(const char* op, const Tensor& target, std::int64_t v, std::int64_t ignore_index);

}  // namespace mezzo
