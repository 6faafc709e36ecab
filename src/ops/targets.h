// targets.h - checks of options and class targets, shared by the losses.
#pragma once

#include <mezzo/ops.h>

namespace mezzo {

/// Error unless each target (contiguous, i32 or i64) is in [0, v) or ignore_index. Returns how many carry loss.
std::int64_t check_targets(const char* op, const Tensor& target, std::int64_t v, std::int64_t ignore_index);

/// Error for batchmean, which is kl_div's, and for a label_smoothing outside [0, 1].
void check_loss_options(const char* op, const LossOptions&);

}  // namespace mezzo
