// byte_alphabet.cpp - the table, both ways.
#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr bool is_printable(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }
constexpr unsigned kOthers = 256;  // the first character of the bytes that are not printable
constexpr unsigned kChars = kOthers + 68;

struct Table {
  std::array<std::array<char, 2>, 256> text{};
  std::array<std::uint8_t, 256> length{};
  std::array<std::int16_t, kChars> byte{};  // by code point; -1: none
};

constexpr Table kTable = [] {
  Table t;
  t.byte.fill(-1);
  unsigned other = kOthers;
  for (unsigned b = 0; b < 256; ++b) {
    const unsigned c = is_printable(b) ? b : other++;
    t.byte[c] = static_cast<std::int16_t>(b);
    t.length[b] = c < 0x80 ? 1 : 2;
    t.text[b] =
        c < 0x80 ? std::array{static_cast<char>(c), '\0'} : std::array{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  }
  return t;
}();

}  // namespace

std::string_view char_of_byte(unsigned char byte) noexcept { return {kTable.text[byte].data(), kTable.length[byte]}; }

std::optional<std::string> bytes_of_chars(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Unit unit = utf8_unit(text);
    if (unit.kind != Utf8::complete || unit.length > 2) return std::nullopt;
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned c = unit.length == 1 ? at(0) : (at(0) & 0x1Fu) << 6 | (at(1) & 0x3Fu);
    if (c >= kChars || kTable.byte[c] < 0) return std::nullopt;
    out += static_cast<char>(kTable.byte[c]);
    text.remove_prefix(unit.length);
  }
  return out;
}

std::string chars_of_bytes(std::string_view bytes) {
  std::string out;
  for (const char b : bytes) out += char_of_byte(static_cast<unsigned char>(b));
  return out;
}

}  // namespace mezzo::text
