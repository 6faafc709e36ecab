// tokenizer_files.h - tokenizers as files hold them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <mezzo/text.h>

#include "io/gguf.h"
#include "text/bpe_tokenizer.h"

namespace mezzo::text {

/// Hugging Face's tokenizer.json: byte-pair encoding, byte-level or with bytes to fall back on. What it has besides and this version cannot follow
/// exactly is an Error that names it. `source` is for the errors.
BpeParts parse_tokenizer_json(std::string_view json, std::string_view source);
/// The same for a byte-level tokenizer, as Hugging Face's library reads it.
std::string to_tokenizer_json(const BpeParts&);

/// The tokenizer in a GGUF file's metadata: `gpt2` (byte-level) and `llama` (SentencePiece's pieces and scores).
BpeParts tokenizer_of_gguf(const io::GgufFile&);

/// A SentencePiece model (.model), byte-pair or unigram, by Google's library.
std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path&);

}  // namespace mezzo::text
