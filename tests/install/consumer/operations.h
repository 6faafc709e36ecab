// operations.h - every op, called once.
#pragma once

#include <vector>

#include <mezzo/tensor.h>

std::vector<mezzo::Tensor> call_every_op();
