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
/// The same as a file that Hugging Face's library reads. Error for one whose spaces are marks by other means than normalisation (such files are
/// copied).
std::string to_tokenizer_json(const BpeParts&);

/// The tokenizer in a GGUF file's metadata: `gpt2` (byte-level) and `llama` (SentencePiece's pieces and scores).
BpeParts tokenizer_of_gguf(const io::GgufFile&);

// ---- with an exported model ------------------------------------------------------------------------

/// The chat template of a directory or a GGUF file as it stands there, unread; empty: none.
std::string chat_template_text(const std::filesystem::path&);
/// The tokenizer of `source` as files in Hugging Face's layout in `dir`: a directory's are copied, a GGUF file's metadata become tokenizer.json,
/// tokenizer_config.json (chat template included) and generation_config.json. `context`: the model's, tokens.
void copy_tokenizer(const std::filesystem::path& source, const std::filesystem::path& dir, std::int64_t context);
/// Tokenizer and chat template of a directory as GGUF's metadata have them. Error for one that has no place there (SentencePiece's .model; patterns
/// without a name).
void put_tokenizer(const Tokenizer&, const std::filesystem::path& dir, io::GgufMetadata&);

/// A SentencePiece model (.model), byte-pair or unigram, by Google's library.
std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path&);

}  // namespace mezzo::text
