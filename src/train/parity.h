// parity.h - how far one model is from another that should be the same: what quantisation and rounding of an exported file cost.
#pragma once

#include <cstdint>
#include <vector>

#include <mezzo/models.h>

namespace mezzo::train {

struct Parity {
  std::int64_t tokens = 0;                             ///< positions compared
  double largest_difference = 0, largest_logit = 0;    ///< of logits: absolute, and the size of the source's own
  double relative_difference = 0;                      ///< norm of the difference over the norm of the source's
  double kl_mean = 0, kl_max = 0;                      ///< of the next token's distribution, source to other, nats
  double same_first = 0;                               ///< share of positions with the same likeliest token
  double source_perplexity = 0, other_perplexity = 0;  ///< of the text
};
/// Mean natural-log loss of the tokens after the first, in evaluation mode and f32, in such windows too. At least two tokens.
double loss_on(models::LanguageModel&, const std::vector<std::int32_t>& ids, std::int64_t window = 256);

/// Both models in evaluation mode and f32 over `ids`, in windows of at most `window` tokens. Error for fewer than two tokens, or vocabularies of
/// different sizes.
Parity compare(models::LanguageModel& source, models::LanguageModel& other, const std::vector<std::int32_t>& ids, std::int64_t window = 256);

}  // namespace mezzo::train
