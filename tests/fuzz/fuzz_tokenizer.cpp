// fuzz_tokenizer.cpp - whatever a tokenizer.json says: an Error, or a tokenizer whose ids are in its vocabulary and which, written to a file and read
// back, cuts a text in the same way.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include <mezzo/error.h>

#include "text/tokenizer_files.h"

namespace {

using namespace mezzo::text;

void require(bool holds) {
  if (!holds) std::abort();
}

constexpr std::string_view kTexts[] = {"", "a", " the  cat\n\tsat: 12345", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "<s>ab</s>", "\xFF\xFE\x80"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) try {
  BpeParts parts = parse_tokenizer_json({reinterpret_cast<const char*>(data), size}, "input");
  const BpeTokenizer tokenizer(std::move(parts), "input");
  std::vector<std::vector<std::int32_t>> cut;
  for (const auto text : kTexts) {
    try {
      cut.push_back(tokenizer.encode(text));
    } catch (const mezzo::Error&) { cut.emplace_back(); }  // bytes that are no UTF-8, a pattern that gives up
    for (const auto id : cut.back()) require(id >= 0 && id < tokenizer.vocab_size());
    (void)tokenizer.decode(cut.back());
  }
  std::string written;
  try {
    written = to_tokenizer_json(tokenizer.parts());
  } catch (const mezzo::Error&) { return 0; }
  const BpeTokenizer again(parse_tokenizer_json(written, "written"), "written");
  for (std::size_t i = 0; i < std::size(kTexts); ++i) {
    try {
      require(again.encode(kTexts[i]) == cut[i]);
    } catch (const mezzo::Error&) {}
  }
  return 0;
} catch (const mezzo::Error&) { return 0; }
