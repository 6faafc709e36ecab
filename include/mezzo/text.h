// text.h - tokenizers: text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/error.h>

namespace mezzo {

struct EncodeOptions {
  /// Special tokens that stand in the text, such as <|im_end|>, become those tokens; false: they are text like any other, as what a stranger
  /// wrote should be.
  bool special = true;
};

/// Text to token ids and back. Immutable once built: any number of threads may use one object.
class MEZZO_API Tokenizer {
 public:
  virtual ~Tokenizer();

  /// What kind it is, as configuration files name it: "byte", "bpe", "sentencepiece", ...
  virtual std::string_view kind() const = 0;
  /// Ids are in [0, vocab_size()).
  virtual std::int32_t vocab_size() const = 0;
  /// The ids of `text`, nothing added at either end.
  virtual std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const = 0;
  /// The same, and for each token the offset in `text` at which what it stands for ends. Where text is normalised first, as near as can be said.
  struct Spans {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> ends;
  };
  virtual Spans encode_spans(std::string_view text, const EncodeOptions& = {}) const;
  /// The bytes that a token stands for; they may be a part of a code point. Error for an id outside the vocabulary.
  virtual std::string_view bytes_of(std::int32_t id) const = 0;
  /// The bytes of all tokens, one after the other. encode() and decode() are inverse on UTF-8 text; what a model makes up need not be UTF-8:
  /// StreamDecoder is for showing it.
  virtual std::string decode(std::span<const std::int32_t> ids) const;
  /// Whether a token is a mark for the model, not text for a reader.
  virtual bool is_special(std::int32_t) const { return false; }
  /// The id of a token by the text it is written with in the vocabulary ("<|im_end|>"); none if there is no such token.
  virtual std::optional<std::int32_t> find(std::string_view) const { return std::nullopt; }
  /// The token that begins a document, and whether the model expects it there; the token that ends one; where the vocabulary has them.
  virtual std::optional<std::int32_t> begin_of_text() const { return std::nullopt; }
  virtual bool adds_begin_of_text() const { return false; }
  virtual std::optional<std::int32_t> end_of_text() const { return std::nullopt; }
};

/// The tokenizer of a model: a directory in Hugging Face's layout (tokenizer.json, or a SentencePiece tokenizer.model), one of these files, or a
/// GGUF file. Error naming file and cause where it cannot be read exactly.
MEZZO_API std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path&);

/// One token a byte: ids 0 to 255 are the bytes themselves. Takes any bytes.
class MEZZO_API ByteTokenizer final : public Tokenizer {
 public:
  std::string_view kind() const override { return "byte"; }
  std::int32_t vocab_size() const override { return 256; }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const override;
  std::string_view bytes_of(std::int32_t id) const override;
};

/// Decodes token by token for a reader who is watching: gives out complete code points only, and always valid UTF-8. Bytes that cannot
/// belong to a code point become U+FFFD, one for each maximal part (Unicode 15, section 3.9, "best practice").
class MEZZO_API StreamDecoder {
 public:
  /// `tokenizer` must outlive this object.
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}
  /// What can be shown after one more token; empty while a code point is incomplete.
  std::string push(std::int32_t id);
  /// The end: an incomplete code point becomes U+FFFD.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // the beginning of a code point, at most three bytes
};

}  // namespace mezzo
