// utf8.h - where a text stops being UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mezzo::text {

enum class Utf8 : std::uint8_t { complete, incomplete, invalid };

/// What a non-empty text begins with. complete: a code point of `length` bytes. incomplete: all of the text, which more bytes could
/// complete. invalid: `length` bytes that can be part of no code point (the maximal part that U+FFFD replaces).
struct Utf8Unit {
  Utf8 kind;
  std::size_t length;
};
Utf8Unit utf8_unit(std::string_view text) noexcept;

/// The offset of the first byte that does not belong to a complete code point; none if the whole text is UTF-8 (Unicode 15, table 3-7: no
/// overlong forms, no surrogates, nothing above U+10FFFF).
std::optional<std::size_t> find_invalid_utf8(std::string_view text) noexcept;

}  // namespace mezzo::text
