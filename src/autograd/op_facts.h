// op_facts.h - what docs/ops.md says about the rows of the op table.
#pragma once

#include "autograd/op_table.h"

namespace mezzo {

/// What is kept in memory, what arithmetic runs in, what sums run in, and where a result is rounded.
struct NumericsFacts {
  std::string_view storage, compute, accumulate, rounding;
};
constexpr NumericsFacts facts(Numerics n) {
  switch (n) {
    case Numerics::moved: return {"T", "none", "none", "none"};
    case Numerics::converted: return {"any to any", "none", "none", "once, to nearest even"};
    case Numerics::exact: return {"T", "T", "none", "none: exact"};
    case Numerics::rounded: return {"T", "f32", "none", "once, on store"};
    case Numerics::summed: return {"T in, the result's dtype out", "f32", "f32, a fixed tree", "once, on store"};
    case Numerics::by_row: return {"T; statistics f32", "f32", "f32, a fixed tree", "once, on store"};
    case Numerics::products: return {"T", "products exact", "f32", "once, on store"};
    case Numerics::attention:
      return {"T; log-sum-exp f32", "scores and softmax f32", "f32", "probabilities to T where products of T are native; result once, on store"};
    case Numerics::recurrent: return {"T; gates before their function and the LSTM's cell f32", "f32", "f32", "h once a step"};
    case Numerics::loss: return {"as given in, T out", "f32", "f32, a fixed tree", "none; gradients once, to the input's dtype"};
    case Numerics::fused_head:
      return {"T in, f32 out; logits f32, 256 rows at a time (reduction none: T, whole)", "products exact, softmax f32", "f32", "p - y once, to T"};
    case Numerics::gathered: return {"the table's dtype in, T out", "none", "none; table gradients f32", "once, on store"};
    case Numerics::scattered: return {"T", "none", "f32", "once, on store"};
    case Numerics::outside: return {"as given", "the function's", "the function's", "the function's"};
  }
  return {};
}

/// The sections of docs/ops.md: each reaches from its first op to the next one's.
struct OpFamily {
  OpId first;
  std::string_view title;
};
inline constexpr std::array kOpFamilies{
    OpFamily{OpId::add, "Element-wise"},
    OpFamily{OpId::sum, "Reductions"},
    OpFamily{OpId::matmul, "Matrix products and attention"},
    OpFamily{OpId::rnn, "Recurrent layers"},
    OpFamily{OpId::conv1d, "Convolutions and pooling"},
    OpFamily{OpId::layer_norm, "Norms, positions, embedding"},
    OpFamily{OpId::cross_entropy, "Losses"},
    OpFamily{OpId::cat, "Joining and indexing"},
    OpFamily{OpId::to, "Views and conversions"},
    OpFamily{OpId::scale, "Of autograd and loss scaling"},
};

}  // namespace mezzo
