// operations.cpp - a call of every op, so that a symbol that the library does not export is missed here.
#include "operations.h"

#include <mezzo/mezzo.h>

using namespace mezzo;

std::vector<Tensor> call_every_op() {
  const Tensor a = rand({4, 6}) + 0.5, b = rand({4, 6}) + 0.5, w = randn({3, 6}), bias = randn({3});
  const Tensor row = from_span<std::int64_t>(std::vector<std::int64_t>{0, 2, 1, 2}, {4}),
               column = from_span<std::int64_t>(std::vector<std::int64_t>{0, 2, 1, 2}, {4, 1});
  const Tensor mask = gt(a, 1.0), q = randn({1, 2, 5, 8}), batch = randn({2, 4, 6});
  // clang-format off
  std::vector<Tensor> out{
      a + b, a - b, a * b, a / b, a + 1.0, a - 1.0, a * 2.0, a / 2.0, 1.0 + a, 1.0 - a, 2.0 * a, 2.0 / a, -a, exp(a), log(a), sqrt(a), rsqrt(a), abs(a),
      tanh(a), sigmoid(a), relu(a), silu(a), softplus(a), sin(a), cos(a), gelu(a), gelu(a, {.tanh = true}), swiglu(a, b), pow(a, b), pow(a, 2.0),
      clamp(a, {.min = 0, .max = 1}), where(mask, a, b), eq(a, b), ne(a, b), lt(a, b), le(a, b), gt(a, b), ge(a, b), eq(a, 1.0), ne(a, 1.0), lt(a, 1.0),
      le(a, 1.0), ge(a, 1.0), masked_fill(a, mask, 0), tril(a), dropout(a, 0.5, true),
      sum(a), mean(a, {.dims = {-1}}), prod(a), amax(a), var(a), norm(a), softmax(a, -1), log_softmax(a, -1), logsumexp(a, -1), cumsum(a, 0),
      matmul(a, w.transpose(0, 1)), mm(a, w.transpose(0, 1)), bmm(batch, batch.transpose(1, 2)), addmm(bias, a, w.transpose(0, 1)), linear(a, w, bias),
      einsum("ij,kj->ik", {a, w}),
      linear_add(randn({4, 3}), a, w, bias), layer_norm(a), rms_norm(a), embedding(row, a), rope(q), scaled_dot_product_attention(q, q, q, {.is_causal = true}),
      packed_attention(randn({1, 5, 48}), 2, {.is_causal = true}),
      cross_entropy(a, row), linear_cross_entropy(a, w, row), nll_loss(log_softmax(a, 1), row), mse_loss(a, b), l1_loss(a, b), smooth_l1_loss(a, b),
      huber_loss(a, b), kl_div(log_softmax(a, 1), softmax(b, 1), {.reduction = Reduction::batchmean}), binary_cross_entropy(sigmoid(a), sigmoid(b)),
      binary_cross_entropy_with_logits(a, sigmoid(b)), cat({a, b}), stack({a, b}), index_select(a, 0, row), gather(a, 1, column), scatter_add(a, 1, column, ones({4, 1})),
      a.reshape({6, 4}), a.transpose(0, 1), a.permute({1, 0}), a.narrow(1, 1, 2), a.expand({2, 4, 6}), a.unsqueeze(0), a.squeeze(0), a.select(0, 1), a.clone(),
      a.detach(), a.contiguous(), a.to(bf16), zeros({2}), ones({2}), empty({0}), full({2}, 3), arange(3, {.dtype = i64}), randn({2}), tensor({1, 2}, {2})};
  // clang-format on
  const Tensor steps = randn({3, 2, 6});
  nn::Lstm lstm({.in = 6, .hidden = 4, .bidirectional = true});
  nn::Gru gru({.in = 6, .hidden = 4});
  nn::Rnn rnn({.in = 6, .hidden = 4});
  nn::LstmCell lstm_cell({.in = 6, .hidden = 4});
  nn::GruCell gru_cell({.in = 6, .hidden = 4});
  nn::RnnCell rnn_cell({.in = 6, .hidden = 4});
  for (const Tensor& y : {lstm(steps, {}).state.c, gru(steps), rnn(steps), lstm_cell(a), gru_cell(a), rnn_cell(a)}) out.push_back(y);
  for (const Tensor& part : split(a, 2)) out.push_back(part);
  return out;
}
