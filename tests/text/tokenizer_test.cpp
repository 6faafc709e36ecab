// tokenizer_test.cpp - UTF-8 against arithmetic on code points, the byte tokenizer, decoding for a reader.
#include <doctest/doctest.h>

#include <mezzo/text.h>

#include "io/support.h"
#include "text/utf8.h"

using namespace mezzo;
using namespace mezzo::test;
using text::find_invalid_utf8;
using text::Utf8;
using text::utf8_unit;

namespace {

std::string utf8_of(std::uint32_t c) {
  const auto tail = [&](int shift) { return static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | (c >> 6)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0 | (c >> 12)), tail(6), tail(0)};
  return {static_cast<char>(0xF0 | (c >> 18)), tail(12), tail(6), tail(0)};
}

/// By decoding and asking whether the shortest encoding of the result is what was decoded.
bool is_one_code_point(std::string_view s) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(s[i])); };
  std::uint32_t c = 0;
  switch (s.size()) {
    case 1: c = byte(0); break;
    case 2: c = (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f); break;
    case 3: c = (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f); break;
    case 4: c = (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f); break;
  }
  return c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF) && utf8_of(c) == s;
}

std::string shown(std::string_view bytes) {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  std::string out;
  for (const char c : bytes) out += decoder.push(static_cast<unsigned char>(c));
  return out + decoder.finish();
}

const std::string R = "\xEF\xBF\xBD";

}  // namespace

TEST_CASE("utf8: sequences of one to four bytes, against their code points") {
  int wrong = 0;
  std::string s(4, '\0');
  const auto check = [&](std::size_t n) {
    const auto text = std::string_view(s).substr(0, n);
    const auto unit = utf8_unit(text);
    wrong += (unit.kind == Utf8::complete && unit.length == n) != is_one_code_point(text);
    wrong += unit.length > n;
  };
  for (int a = 0; a < 256; ++a) {
    s[0] = static_cast<char>(a);
    check(1);
    for (int b = 0; b < 256; ++b) {
      s[1] = static_cast<char>(b);
      check(2);
      for (int c = 0; c < 256; ++c) {
        s[2] = static_cast<char>(c);
        check(3);
        if (a < 0xE0) continue;
        for (const int d : {0x00, 0x7f, 0x80, 0x9f, 0xbf, 0xc0, 0xff}) {
          s[3] = static_cast<char>(d);
          check(4);
        }
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("utf8: the offset of the first bad byte, at every place in and between the blocks") {
  CHECK_FALSE(find_invalid_utf8("").has_value());
  for (const std::string filler : {"a", "\u00e9", "\u20ac", "\U0001F600"}) {
    std::string good;
    for (int n = 0; n < 80; ++n, good += filler) {
      REQUIRE_FALSE(find_invalid_utf8(good).has_value());
      for (const char* bad : {"\xff", "\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80"}) {
        REQUIRE(find_invalid_utf8(good + bad) == good.size());
        REQUIRE(find_invalid_utf8(good + bad + std::string(40, 'z')) == good.size());
      }
    }
  }
}

TEST_CASE("ByteTokenizer: ids are bytes, and every text comes back") {
  const ByteTokenizer tokenizer;
  CHECK(tokenizer.vocab_size() == 256);
  CHECK(tokenizer.kind() == "byte");
  CHECK_FALSE(tokenizer.end_of_text().has_value());
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const auto ids = tokenizer.encode(all);
  REQUIRE(ids.size() == 256);
  for (int b = 0; b < 256; ++b) CHECK(ids[b] == b);
  CHECK(tokenizer.decode(ids) == all);
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.decode({}).empty());
  for (const int bad : {-1, 256}) CHECK(contains(error_of([&] { tokenizer.bytes_of(bad); }), "token " + std::to_string(bad)));
}

TEST_CASE("StreamDecoder: a code point appears with its last byte") {
  const ByteTokenizer tokenizer;
  StreamDecoder decoder(tokenizer);
  int wrong = 0;
  for (std::uint32_t c = 0; c < 0x110000; c += c < 0x900 ? 1 : 0x3f) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    const std::string bytes = utf8_of(c);
    for (std::size_t i = 0; i < bytes.size(); ++i)
      wrong += decoder.push(static_cast<unsigned char>(bytes[i])) != (i + 1 == bytes.size() ? bytes : "");
  }
  CHECK(wrong == 0);
  CHECK(decoder.finish().empty());
  CHECK(decoder.push(0xF0).empty());
  CHECK(decoder.push(0x9F).empty());
  CHECK(decoder.finish() == R);
  CHECK(decoder.finish().empty());
  CHECK(decoder.push('a') == "a");
}

TEST_CASE("StreamDecoder: U+FFFD for each maximal part, as Unicode's tables 3-8 to 3-11 have it") {
  const auto r = [](int n) {
    std::string s;
    while (n-- > 0) s += R;
    return s;
  };
  CHECK(shown("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == r(8) + "A");
  CHECK(shown("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == r(8) + "A");
  CHECK(shown("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == r(5) + "A" + r(2) + "B");
  CHECK(shown("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r(4) + "A");
}

TEST_CASE("StreamDecoder: tokens of several bytes that begin and end inside code points") {
  struct Pieces final : Tokenizer {
    std::vector<std::string> pieces{"caf\xC3", "\xA9 \xE2\x82", "\xAC!", "\xF0"};
    std::string_view kind() const override { return "pieces"; }
    std::int32_t vocab_size() const override { return 4; }
    std::vector<std::int32_t> encode(std::string_view, const EncodeOptions& = {}) const override { return {}; }
    std::string_view bytes_of(std::int32_t id) const override { return pieces.at(static_cast<std::size_t>(id)); }
  };
  const Pieces tokenizer;
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(0) == "caf");
  CHECK(decoder.push(1) == "\u00e9 ");
  CHECK(decoder.push(3) == R);        // cuts the euro sign off
  CHECK(decoder.push(2) == R + "!");  // F0 AC was still a part of a code point
  const std::int32_t ids[] = {0, 1, 2};
  CHECK(tokenizer.decode(ids) == "caf\u00e9 \u20ac!");
}
