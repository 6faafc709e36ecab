// byte_alphabet.h - the 256 printable characters that byte-level vocabularies (GPT-2's and all after it) write bytes with.
//
// Radford et al.'s table: the printable bytes of Latin-1 (33-126, 161-172, 174-255) stand for themselves, the others, in rising order, for
// U+0100 onwards; a space is written U+0120.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mezzo::text {

/// The character that stands for a byte, as UTF-8.
std::string_view char_of_byte(unsigned char byte) noexcept;
/// Text in the alphabet back to bytes; none if a character is not in it.
std::optional<std::string> bytes_of_chars(std::string_view text);
/// Bytes to text in the alphabet.
std::string chars_of_bytes(std::string_view bytes);

}  // namespace mezzo::text
