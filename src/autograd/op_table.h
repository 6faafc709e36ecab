// op_table.h - every op: its name, its precision class in both policies, how it computes, and how its gradient is checked.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <mezzo/policy.h>

namespace mezzo {

// clang-format off
enum class OpId : std::uint8_t {
  // element-wise
  add, sub, mul, div, pow, neg, abs, exp, log, sqrt, rsqrt, tanh, sigmoid, relu, silu, gelu, softplus, sin, cos, swiglu, clamp, where, compare, masked_fill, tril, dropout,
  // reductions
  sum, sum_dim, mean, mean_dim, prod, amax, var, norm, cumsum, logsumexp, softmax, log_softmax,
  // matrix products
  matmul, mm, bmm, addmm, linear, einsum, scaled_dot_product_attention, packed_attention, linear_cross_entropy,
  // recurrent layers
  rnn, lstm, gru,
  // convolutions, pooling
  conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d, max_pool2d, avg_pool2d, adaptive_avg_pool2d,
  // norms, positions
  layer_norm, rms_norm, group_norm, batch_norm, rope, embedding,
  // losses
  cross_entropy, nll_loss, mse_loss, l1_loss, smooth_l1_loss, huber_loss, kl_div, binary_cross_entropy, binary_cross_entropy_with_logits,
  // joining and indexing
  cat, stack, split, index_select, gather, scatter_add,
  // views and conversions
  to, clone, contiguous, reshape, transpose, permute, narrow, expand, unsqueeze, squeeze, select,
  // of the engine
  scale, function, checkpoint, identity, gradient_of,
  count
};
// clang-format on
inline constexpr std::size_t kOpCount = static_cast<std::size_t>(OpId::count);
static_assert(kOpCount <= amp::kPolicyOps, "amp::kPolicyOps in mezzo/policy.h is the room for this enum");

/// How the gradient sweep checks an op (tests/grad): smooth ops to second order; kinked ones away from their kinks;
/// linear ones have no second derivative of their own; none: not differentiable, or of the engine.
enum class Check : std::uint8_t { none, linear, smooth, kinked };

/// How an op's kernel computes, whatever the class that chose its dtype T; f64 is f64 throughout. op_facts.h says it in words.
enum class Numerics : std::uint8_t {
  moved,       // elements keep their bits
  converted,   // one rounding is all it does
  exact,       // the result is an input, its negative, a fixed number or a truth value
  rounded,     // element by element in f32
  summed,      // reductions and running sums
  by_row,      // a row's statistics, then element by element
  products,    // matrix products
  attention,   // products with a softmax between
  recurrent,   // a product each step, then gates
  loss,        // of 16-bit inputs too: f32 from the first operation to the result
  fused_head,  // products, and a loss of them that is never stored whole
  gathered,    // rows of a table in its own dtype
  scattered,   // sums at indices
  outside      // what the user's function, or another op, does
};

struct OpInfo {
  OpId id;
  std::string_view name;
  amp::Cast mezzo, torch;
  Numerics numerics;
  Check check;
};

namespace op_table {
using enum amp::Cast;
using enum Check;
using enum Numerics;
// clang-format off
inline constexpr std::array kOps{
    OpInfo{OpId::add,             "add",           widest,       widest,   rounded,    Check::linear},
    OpInfo{OpId::sub,             "sub",           widest,       widest,   rounded,    Check::linear},
    OpInfo{OpId::mul,             "mul",           widest,       widest,   rounded,    smooth},
    OpInfo{OpId::div,             "div",           widest,       widest,   rounded,    smooth},
    OpInfo{OpId::pow,             "pow",           f32,          f32,      rounded,    smooth},
    OpInfo{OpId::neg,             "neg",           as_is,        as_is,    exact,      Check::linear},
    OpInfo{OpId::abs,             "abs",           as_is,        as_is,    exact,      kinked},
    OpInfo{OpId::exp,             "exp",           f32,          f32,      rounded,    smooth},
    OpInfo{OpId::log,             "log",           f32,          f32,      rounded,    smooth},
    OpInfo{OpId::sqrt,            "sqrt",          f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::rsqrt,           "rsqrt",         f32,          f32,      rounded,    smooth},
    OpInfo{OpId::tanh,            "tanh",          f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::sigmoid,         "sigmoid",       f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::relu,            "relu",          as_is,        as_is,    exact,      kinked},
    OpInfo{OpId::silu,            "silu",          f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::gelu,            "gelu",          f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::softplus,        "softplus",      f32,          f32,      rounded,    smooth},
    OpInfo{OpId::sin,             "sin",           f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::cos,             "cos",           f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::swiglu,          "swiglu",        f32_internal, as_is,    rounded,    smooth},
    OpInfo{OpId::clamp,           "clamp",         as_is,        as_is,    exact,      kinked},
    OpInfo{OpId::where,           "where",         widest,       widest,   exact,      Check::linear},
    OpInfo{OpId::compare,         "compare",       as_is,        as_is,    exact,      none},
    OpInfo{OpId::masked_fill,     "masked_fill",   as_is,        as_is,    exact,      Check::linear},
    OpInfo{OpId::tril,            "tril",          as_is,        as_is,    exact,      Check::linear},
    OpInfo{OpId::dropout,         "dropout",       f32_internal, as_is,    rounded,    Check::linear},
    OpInfo{OpId::sum,             "sum",           f32,          f32,      summed,     Check::linear},
    OpInfo{OpId::sum_dim,         "sum_dim",       f32_internal, f32,      summed,     Check::linear},
    OpInfo{OpId::mean,            "mean",          f32,          as_is,    summed,     Check::linear},
    OpInfo{OpId::mean_dim,        "mean_dim",      f32_internal, as_is,    summed,     Check::linear},
    OpInfo{OpId::prod,            "prod",          f32,          f32,      summed,     smooth},
    OpInfo{OpId::amax,            "amax",          as_is,        as_is,    exact,      kinked},
    OpInfo{OpId::var,             "var",           f32,          as_is,    summed,     smooth},
    OpInfo{OpId::norm,            "norm",          f32,          f32,      summed,     smooth},
    OpInfo{OpId::cumsum,          "cumsum",        f32,          f32,      summed,     Check::linear},
    OpInfo{OpId::logsumexp,       "logsumexp",     f32,          f32,      summed,     smooth},
    OpInfo{OpId::softmax,         "softmax",       f32_internal, f32,      by_row,     smooth},
    OpInfo{OpId::log_softmax,     "log_softmax",   f32,          f32,      by_row,     smooth},
    OpInfo{OpId::matmul,          "matmul",        low,          low,      products,   smooth},
    OpInfo{OpId::mm,              "mm",            low,          low,      products,   smooth},
    OpInfo{OpId::bmm,             "bmm",           low,          low,      products,   smooth},
    OpInfo{OpId::addmm,           "addmm",         low,          low,      products,   smooth},
    OpInfo{OpId::linear,          "linear",        low,          low,      products,   smooth},
    OpInfo{OpId::einsum,          "einsum",        low,          low,      products,   smooth},
    OpInfo{OpId::scaled_dot_product_attention, "scaled_dot_product_attention", low, low, attention, smooth},
    OpInfo{OpId::packed_attention, "packed_attention", low, low, attention, smooth},
    OpInfo{OpId::linear_cross_entropy, "linear_cross_entropy", low, low, fused_head, smooth},
    OpInfo{OpId::rnn,             "rnn",           low,          low,      recurrent,  smooth},
    OpInfo{OpId::lstm,            "lstm",          low,          low,      recurrent,  smooth},
    OpInfo{OpId::gru,             "gru",           low,          low,      recurrent,  smooth},
    OpInfo{OpId::conv1d,          "conv1d",        low,          low,      products,   smooth},
    OpInfo{OpId::conv2d,          "conv2d",        low,          low,      products,   smooth},
    OpInfo{OpId::conv3d,          "conv3d",        low,          low,      products,   smooth},
    OpInfo{OpId::conv_transpose1d, "conv_transpose1d", low, low, products, smooth},
    OpInfo{OpId::conv_transpose2d, "conv_transpose2d", low, low, products, smooth},
    OpInfo{OpId::conv_transpose3d, "conv_transpose3d", low, low, products, smooth},
    OpInfo{OpId::max_pool2d,      "max_pool2d",    as_is,        as_is,    exact,      kinked},
    OpInfo{OpId::avg_pool2d,      "avg_pool2d",    f32_internal, as_is,    summed,     Check::linear},
    OpInfo{OpId::adaptive_avg_pool2d, "adaptive_avg_pool2d", f32_internal, as_is, summed, Check::linear},
    OpInfo{OpId::layer_norm,      "layer_norm",    f32_internal, f32,      by_row,     smooth},
    OpInfo{OpId::rms_norm,        "rms_norm",      f32_internal, f32,      by_row,     smooth},
    OpInfo{OpId::group_norm,      "group_norm",    f32_internal, f32,      by_row,     smooth},
    OpInfo{OpId::batch_norm,      "batch_norm",    f32_internal, as_is,    by_row,     smooth},
    OpInfo{OpId::rope,            "rope",          f32_internal, as_is,    rounded,    Check::linear},
    OpInfo{OpId::embedding,       "embedding",     low,          as_is,    gathered,   Check::linear},
    OpInfo{OpId::cross_entropy,   "cross_entropy", f32,          f32,      loss,       smooth},
    OpInfo{OpId::nll_loss,        "nll_loss",      f32,          f32,      loss,       Check::linear},
    OpInfo{OpId::mse_loss,        "mse_loss",      f32,          f32,      loss,       smooth},
    OpInfo{OpId::l1_loss,         "l1_loss",       f32,          f32,      loss,       kinked},
    OpInfo{OpId::smooth_l1_loss,  "smooth_l1_loss",f32,          f32,      loss,       smooth},
    OpInfo{OpId::huber_loss,      "huber_loss",    f32,          f32,      loss,       smooth},
    OpInfo{OpId::kl_div,          "kl_div",        f32,          f32,      loss,       smooth},
    OpInfo{OpId::binary_cross_entropy, "binary_cross_entropy", banned, banned, loss, smooth},
    OpInfo{OpId::binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", f32, f32, loss, smooth},
    OpInfo{OpId::cat,             "cat",           widest,       widest,   moved,      Check::linear},
    OpInfo{OpId::stack,           "stack",         widest,       widest,   moved,      Check::linear},
    OpInfo{OpId::split,           "split",         as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::index_select,    "index_select",  as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::gather,          "gather",        as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::scatter_add,     "scatter_add",   widest,       widest,   scattered,  Check::linear},
    OpInfo{OpId::to,              "to",            as_is,        as_is,    converted,  Check::linear},
    OpInfo{OpId::clone,           "clone",         as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::contiguous,      "contiguous",    as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::reshape,         "reshape",       as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::transpose,       "transpose",     as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::permute,         "permute",       as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::narrow,          "narrow",        as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::expand,          "expand",        as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::unsqueeze,       "unsqueeze",     as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::squeeze,         "squeeze",       as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::select,          "select",        as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::scale,           "scale",         f32,          f32,      rounded,    Check::linear},
    OpInfo{OpId::function,        "function",      as_is,        as_is,    outside,    none},
    OpInfo{OpId::checkpoint,      "checkpoint",    as_is,        as_is,    outside,    none},
    OpInfo{OpId::identity,        "identity",      as_is,        as_is,    moved,      Check::linear},
    OpInfo{OpId::gradient_of,     "gradient_of",   as_is,        as_is,    outside,    none},
};
// clang-format on
static_assert(kOps.size() == kOpCount, "an op has no row");
consteval bool in_order() {
  for (std::size_t i = 0; i < kOps.size(); ++i)
    if (static_cast<std::size_t>(kOps[i].id) != i) return false;
  return true;
}
static_assert(in_order(), "rows stand in the order of OpId");
}  // namespace op_table

constexpr const OpInfo& info(OpId op) { return op_table::kOps[static_cast<std::size_t>(op)]; }
constexpr const char* name(OpId op) { return info(op).name.data(); }

/// What a policy may make of an op.
enum class Choice : std::uint8_t {
  any,
  loss,  ///< f32 or banned: a loss is never rounded to 16 bits
  none   ///< it moves elements, compares or belongs to the engine: the result's dtype is the input's, or fixed
};
constexpr Choice policy_choice(OpId op) {
  const auto& row = info(op);
  if (row.numerics == Numerics::loss) return Choice::loss;
  if (op == OpId::compare || op == OpId::scale) return Choice::none;
  const bool moves = row.numerics == Numerics::moved || row.numerics == Numerics::converted || row.numerics == Numerics::outside;
  return moves && row.mezzo == amp::Cast::as_is ? Choice::none : Choice::any;  // cat and stack cast what they move
}

}  // namespace mezzo
