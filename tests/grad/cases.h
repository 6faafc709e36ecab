// cases.h - the golden cases of tests/golden/ops_f64.safetensors (PyTorch in float64) and how each op is called on them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <mezzo/mezzo.h>

namespace mezzo::test {

struct OpCase {
  std::string name, op;
  nlohmann::json options;
  std::vector<Tensor> in, out, dy;
  std::map<std::size_t, Tensor> grad;  // by input
};

/// All cases; read once.
const std::vector<OpCase>& golden_cases();
/// Runs the case's op on `in`, whose floating tensors may have another dtype or require grad.
std::vector<Tensor> run(const OpCase&, const std::vector<Tensor>& in);
/// The case's inputs in `dtype` (floating ones with a golden gradient), as leaves that require grad.
std::vector<Tensor> leaves(const OpCase&, Dtype dtype);

}  // namespace mezzo::test
