// updates.h - which elements an optimizer's step left as they were.
#pragma once

#include <cstddef>
#include <vector>

#include "inspect/values.h"

namespace mezzo::inspect {

class Updates {
 public:
  explicit Updates(std::int64_t sample) : sample_(sample) {}
  /// Copies a sample of each parameter that has a gradient, and of what completes it.
  void before(const optim::Optimizer&);
  /// One Record a parameter (ranges of the weight's change, where the weight is f32); forgets the copies.
  std::vector<Record> after();

 private:
  struct Part {
    Tensor live;                 // the weight, or what the optimizer keeps beside it, of as many elements
    std::vector<std::byte> was;  // the sample's elements
  };
  struct Parameter {
    std::string name;
    Dtype dtype;
    Sample sample;
    std::vector<bool> moves;  // of the sample: the gradient is not 0
    std::vector<Part> parts;  // the weight first
  };
  std::int64_t sample_;
  std::vector<Parameter> parameters_;
};

}  // namespace mezzo::inspect
