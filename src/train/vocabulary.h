// vocabulary.h - the tokenizer of a run: bytes, or a byte-level vocabulary learnt from its text and kept in its directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "text/corpus.h"
#include "train/trainer.h"

namespace mezzo::train {

inline constexpr std::int64_t kLeastVocab = 257, kMostVocab = 1 << 20;  // bytes and the end of a document; what training takes

/// Tokens of the run's tokenizer, known before the text is read.
std::int64_t vocab_of(const TrainOptions&);
/// Bytes, or a vocabulary learnt from the part of the text that is for training. Error if the text has too few different pairs.
std::shared_ptr<const Tokenizer> make_tokenizer(const TrainOptions&, const text::Documents&);

/// Writes tokenizer_config.json (with the model's context, where there is one), and tokenizer.json unless tokens are bytes.
void save_tokenizer(const Tokenizer&, const std::filesystem::path& dir, std::int64_t context = 0);
/// What save_tokenizer wrote into a run's directory (older runs wrote nothing: bytes).
std::shared_ptr<const Tokenizer> saved_tokenizer(const std::filesystem::path& run);
/// The tokenizer of a model directory: one of ours, or of Hugging Face's.
std::shared_ptr<const Tokenizer> model_tokenizer(const std::filesystem::path& dir);

}  // namespace mezzo::train
