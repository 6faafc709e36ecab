// cases.h - golden cases of PyTorch in float64 (tests/golden/ops_f64.safetensors, autocast_values.safetensors) and how each op is called on them.
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
  std::map<std::size_t, Tensor> grad;    // by input
  nlohmann::json rows;                   // of autocast_values.safetensors: what each policy gives
  std::map<std::string, Tensor> others;  // tensors under other names
  const Tensor& other(const std::string& name) const { return others.at(name); }
};

/// The cases of a file of ops.py's or autocast_values.py's making.
std::vector<OpCase> read_cases(const std::string& path);
/// All cases of tests/golden/ops_f64.safetensors; read once.
const std::vector<OpCase>& golden_cases();
/// Runs the case's op on `in`, whose floating tensors may have another dtype or require grad.
std::vector<Tensor> run(const OpCase&, const std::vector<Tensor>& in);
/// The case's inputs in `dtype` (floating ones with a golden gradient), as leaves that require grad.
std::vector<Tensor> leaves(const OpCase&, Dtype dtype);

}  // namespace mezzo::test
