// parity.cpp - runs both models over the same tokens, and compares logits.
#include "train/parity.h"

#include <algorithm>
#include <cmath>

#include <mezzo/ops.h>

#include "autograd/context.h"
#include "core/fail.h"
#include "train/eval_mode.h"

namespace mezzo::train {

namespace {

std::int64_t last_input(const std::vector<std::int32_t>& ids) { return static_cast<std::int64_t>(ids.size()) - 1; }

}  // namespace

double loss_on(models::LanguageModel& model, const std::vector<std::int32_t>& ids, std::int64_t window) {
  const GradMode off(false);
  const EvalMode mode(model);
  window = std::min(window, model.context());
  double sum = 0;
  for (std::int64_t begin = 0; begin < last_input(ids); begin += window) {
    const auto t = std::min(window, last_input(ids) - begin);
    const auto at = [&](std::int64_t i) { return std::span(ids).subspan(static_cast<std::size_t>(begin + i), static_cast<std::size_t>(t)); };
    sum += model.loss(from_span(at(0), {1, t}), from_span(at(1), {1, t})).item() * static_cast<double>(t);
  }
  return sum / static_cast<double>(last_input(ids));
}

Parity compare(models::LanguageModel& source, models::LanguageModel& other, const std::vector<std::int32_t>& ids, std::int64_t window) {
  const char* op = "parity";
  if (ids.size() < 2) fail(op, fmt::format("a text of {} tokens given, 2 or more wanted", ids.size()));
  if (source.vocab() != other.vocab())
    fail(op, fmt::format("vocabularies of {} and {} tokens given, equal ones wanted", source.vocab(), other.vocab()));
  const GradMode off(false);
  const EvalMode first(source), second(other);
  window = std::min({window, source.context(), other.context()});
  Parity p;
  double difference = 0, size = 0, loss[2] = {0, 0};
  std::int64_t same = 0;
  for (std::int64_t begin = 0; begin + 1 < static_cast<std::int64_t>(ids.size()); begin += window) {
    const auto t = std::min(window, static_cast<std::int64_t>(ids.size()) - 1 - begin);
    const auto at = [&](std::int64_t i) { return std::span(ids).subspan(static_cast<std::size_t>(begin + i), static_cast<std::size_t>(t)); };
    const Tensor x = from_span(at(0), {1, t}), y = from_span(at(1), {t, 1});
    const Tensor a = source.forward(x).reshape({t, source.vocab()}), b = other.forward(x).reshape({t, source.vocab()});
    const Tensor d = sub(a, b);
    p.largest_difference = std::max(p.largest_difference, amax(abs(d)).item());
    p.largest_logit = std::max(p.largest_logit, amax(abs(a)).item());
    difference += std::pow(norm(d).item(), 2);
    size += std::pow(norm(a).item(), 2);
    const Tensor log_a = log_softmax(a, -1), log_b = log_softmax(b, -1);
    const Tensor kl = sum(mul(exp(log_a), sub(log_a, log_b)), {.dims = {-1}});  // (t)
    p.kl_mean += sum(kl).item();
    p.kl_max = std::max(p.kl_max, amax(kl).item());
    loss[0] -= sum(gather(log_a, -1, y)).item();
    loss[1] -= sum(gather(log_b, -1, y)).item();
    const auto va = a.data<float>(), vb = b.data<float>();
    const auto v = static_cast<std::ptrdiff_t>(source.vocab());
    for (std::ptrdiff_t r = 0; r < t; ++r) {
      const auto likeliest = [&](std::span<const float> row) {
        return std::max_element(row.begin() + r * v, row.begin() + (r + 1) * v) - row.begin();
      };
      same += likeliest(va) == likeliest(vb);
    }
    p.tokens += t;
  }
  const auto n = static_cast<double>(p.tokens);
  p.relative_difference = std::sqrt(difference / size);
  p.kl_mean = p.kl_mean < 0 ? 0 : p.kl_mean / n;  // it is at least 0, but for rounding; NaN stays
  p.same_first = static_cast<double>(same) / n;
  p.source_perplexity = std::exp(loss[0] / n);
  p.other_perplexity = std::exp(loss[1] / n);
  return p;
}

}  // namespace mezzo::train
