// added_tokens.h - tokens that are found in text as they are written, before anything else is done to it: <|im_end|> and its like.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mezzo::text {

struct AddedToken {
  std::string content;
  std::int32_t id = 0;
  bool special = true;                  ///< not text for a reader
  bool normalized = false;              ///< looked for after normalisation
  bool lstrip = false, rstrip = false;  ///< takes the white space before or after it along
  bool single_word = false;             ///< only where no letter, digit or _ is beside it
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// Error naming `source` for an empty one.
  AddedTokens(std::vector<AddedToken> tokens, std::string_view source);

  struct Piece {
    std::string_view text;
    const AddedToken* token = nullptr;  ///< null: text between
  };
  /// Text cut at the tokens: the leftmost, of those the longest.
  std::vector<Piece> split(std::string_view text) const;
  const std::vector<AddedToken>& all() const noexcept { return tokens_; }
  bool empty() const noexcept { return tokens_.empty(); }

 private:
  const AddedToken* match(std::string_view text, std::size_t at) const;
  std::vector<AddedToken> tokens_;                                       // sorted by first byte, then longest first
  std::array<std::pair<std::uint32_t, std::uint32_t>, 256> by_first_{};  // range in tokens_
};

}  // namespace mezzo::text
