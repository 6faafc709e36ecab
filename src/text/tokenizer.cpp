// tokenizer.cpp - the byte tokenizer, and decoding for a reader.
#include <array>

#include <fmt/core.h>

#include <mezzo/text.h>

#include "core/fail.h"
#include "text/utf8.h"

namespace mezzo {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

constexpr auto kBytes = [] {
  std::array<char, 256> bytes{};
  for (std::size_t i = 0; i < 256; ++i) bytes[i] = static_cast<char>(i);
  return bytes;
}();

}  // namespace

Tokenizer::~Tokenizer() = default;

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string out;
  for (const std::int32_t id : ids) out += bytes_of(id);
  return out;
}

Tokenizer::Spans Tokenizer::encode_spans(std::string_view text, const EncodeOptions& options) const {
  Spans out{encode(text, options), {}};
  std::int64_t end = 0;
  for (const std::int32_t id : out.ids) out.ends.push_back(end += static_cast<std::int64_t>(bytes_of(id).size()));
  return out;
}

std::vector<std::int32_t> ByteTokenizer::encode(std::string_view text, const EncodeOptions&) const {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  return {bytes, bytes + text.size()};
}

std::string_view ByteTokenizer::bytes_of(std::int32_t id) const {
  if (id < 0 || id > 255) fail("decode", fmt::format("token {}, 0 to 255 were expected from the byte tokenizer", id));
  return {&kBytes[static_cast<std::size_t>(id)], 1};
}

std::string StreamDecoder::push(std::int32_t id) {
  pending_ += tokenizer_->bytes_of(id);
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const text::Utf8Unit unit = text::utf8_unit(rest);
    if (unit.kind == text::Utf8::incomplete) break;
    out += unit.kind == text::Utf8::complete ? rest.substr(0, unit.length) : kReplacement;
    rest.remove_prefix(unit.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

std::string StreamDecoder::finish() {
  if (pending_.empty()) return {};
  pending_.clear();  // an incomplete code point is one maximal part
  return std::string(kReplacement);
}

}  // namespace mezzo
