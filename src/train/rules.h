// rules.h - a run's optimizer: chosen by name, checked, built, and counted.
#pragma once

#include <memory>
#include <vector>

#include "train/trainer.h"

namespace mezzo::train {

/// Error for an --optimizer or --state-dtype that is not one, or that do not go together.
void check_optimizer(const TrainOptions&);
/// What a user should know of an optimizer that does not suit what is trained; "" where it does.
std::string doubt_of_optimizer(const TrainOptions&);
/// --betas, or what the optimizer is usually run with.
std::array<double, 2> betas_of(const TrainOptions&);
std::unique_ptr<optim::Optimizer> make_optimizer(const TrainOptions&, const Recipe&, std::vector<optim::ParamGroup>);

}  // namespace mezzo::train
