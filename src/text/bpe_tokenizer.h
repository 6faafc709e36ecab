// bpe_tokenizer.h - tokenizers by byte-pair merging, whichever file they come from: byte-level ones, and SentencePiece's with bytes to fall back on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <mezzo/text.h>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/splitter.h"

namespace mezzo::text {

inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  // U+2581, SentencePiece's space

enum class PrefixSpace : std::uint8_t { never, first, always };  // a space mark before: the text's beginning, every text between added tokens

/// Everything that defines one, as a file says it.
struct BpeParts {
  std::vector<std::string> tokens;  ///< by id, as the vocabulary writes them: in the byte alphabet, or as SentencePiece's pieces
  struct Pair {
    std::int32_t left, right, result;
  };
  std::vector<Pair> merges;             ///< in the order of their ranks, unless `ranks` has them
  std::vector<std::int32_t> ranks;      ///< of merges, some equal; empty: their order
  bool byte_level = true;               ///< words are bytes in the alphabet; else code points
  bool byte_fallback = false;           ///< code points without a token are tokens <0x00> to <0xFF>
  std::optional<std::int32_t> unknown;  ///< for what has no token; none: it is left out
  bool fuse_unknown = false;            ///< one for a run of them
  bool ignore_merges = false;           ///< a word that is a token is that token
  Normalizer normalizer;
  PrefixSpace prefix = PrefixSpace::never;
  bool space_marks = false;     ///< spaces are written as kSpaceMark, after normalisation
  bool split_at_marks = false;  ///< ... and a word begins at each
  Splitter splitter;
  std::vector<AddedToken> added;   ///< their ids may lie in tokens or after them
  bool strip_first_space = false;  ///< in decode()
  std::optional<std::int32_t> begin, end;
  bool adds_begin = false;
};

class BpeTokenizer final : public Tokenizer {
 public:
  /// Error naming `source` for ids out of range and tokens that contradict each other.
  BpeTokenizer(BpeParts parts, std::string source);

  std::string_view kind() const override { return "bpe"; }
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(parts_.tokens.size()); }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const override;
  Spans encode_spans(std::string_view text, const EncodeOptions& = {}) const override;
  std::string_view bytes_of(std::int32_t id) const override;
  std::string decode(std::span<const std::int32_t> ids) const override;
  bool is_special(std::int32_t id) const override { return id >= 0 && id < vocab_size() && special_[static_cast<std::size_t>(id)]; }
  std::optional<std::int32_t> find(std::string_view token) const override;
  std::optional<std::int32_t> begin_of_text() const override { return parts_.begin; }
  bool adds_begin_of_text() const override { return parts_.adds_begin; }
  std::optional<std::int32_t> end_of_text() const override { return parts_.end; }

  const BpeParts& parts() const noexcept { return parts_; }

 private:
  class Encoder;
  BpeParts parts_;
  std::string source_;
  std::unordered_map<std::string_view, std::int32_t> ids_;  // keys lie in parts_.tokens
  MergeTable merges_;
  std::int32_t byte_ids_[256];          // of single bytes; -1: none
  std::vector<std::string> bytes_;      // by id
  std::vector<bool> special_;           // by id
  AddedTokens raw_[2], normalized_[2];  // [with special ones]
};

}  // namespace mezzo::text
