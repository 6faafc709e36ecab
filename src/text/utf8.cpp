// utf8.cpp - where a text stops being UTF-8.
#include "text/utf8.h"

#include <cstring>

namespace mezzo::text {
namespace {

/// Length of the ASCII text at the beginning, in steps of 32 bytes: most text is mostly this, and goes by at the speed of memory.
std::size_t ascii_prefix(std::string_view text) noexcept {
  std::size_t n = 0;
  for (std::uint64_t w[4]; n + sizeof w <= text.size(); n += sizeof w) {
    std::memcpy(w, text.data() + n, sizeof w);
    if ((w[0] | w[1] | w[2] | w[3]) & 0x8080808080808080u) break;
  }
  return n;
}

}  // namespace

Utf8Unit utf8_unit(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {Utf8::complete, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8::invalid, 1};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte has a narrower range after four of the leads.
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8::incomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8::invalid, i};
    low = 0x80, high = 0xBF;
  }
  return {Utf8::complete, length};
}

std::optional<std::size_t> find_invalid_utf8(std::string_view text) noexcept {
  std::size_t at = 0;
  while (true) {
    at += ascii_prefix(text.substr(at));
    // At least the 32 bytes that were not all ASCII, then look for ASCII again.
    for (const std::size_t until = at + 32; at < until;) {
      if (at == text.size()) return std::nullopt;
      const Utf8Unit unit = utf8_unit(text.substr(at));
      if (unit.kind != Utf8::complete) return at;
      at += unit.length;
    }
  }
}

}  // namespace mezzo::text
