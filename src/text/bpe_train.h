// bpe_train.h - a byte-level vocabulary learnt from text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe_tokenizer.h"

namespace mezzo::text {

struct BpeTrainOptions {
  std::int32_t vocab = 4096;                             ///< tokens in all: the special ones, 256 bytes, merges
  std::vector<std::string> special = {"<|endoftext|>"};  ///< first in the vocabulary; the first of them ends a document
};

/// Byte-pair encoding (Sennrich et al., arXiv 1508.07909) over the bytes of words as GPT-2 cuts them: always the most frequent pair, of equally
/// frequent ones that of the smallest ids: the vocabulary and merges that Hugging Face's trainer finds. Error if the texts have not enough
/// different pairs for so many tokens, or `vocab` leaves no room for the bytes.
BpeParts train_bpe(std::span<const std::string_view> texts, const BpeTrainOptions& = {});

}  // namespace mezzo::text
