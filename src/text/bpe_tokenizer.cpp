// bpe_tokenizer.cpp - from text to words, from words to tokens, and back.
#include "text/bpe_tokenizer.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <iterator>
#include <list>

#include <fmt/core.h>

#include "core/fail.h"
#include "text/byte_alphabet.h"
#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr std::string_view kOp = "tokenizer";

/// The byte that "<0x41>" writes.
std::optional<unsigned char> written_byte(std::string_view token) {
  unsigned value = 0;
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<unsigned char>(value);
}

std::string with_spaces(std::string_view piece) {
  std::string out;
  for (std::size_t i = 0; i < piece.size();) {
    const bool mark = piece.substr(i).starts_with(kSpaceMark);
    out += mark ? ' ' : piece[i];
    i += mark ? kSpaceMark.size() : 1;
  }
  return out;
}

/// Where offsets in `changed` lie in `text`, of which it is made: exact where the two agree or a space became a mark; behind the first other
/// change, by the distance from the end.
class Alignment {
 public:
  Alignment(std::string_view text, std::string_view changed) : text_(text), changed_(changed) {}
  std::size_t operator()(std::size_t end) {  // rising
    while (at_ < end && !lost_) step();
    if (at_ >= end) return in_text_;
    const std::size_t from_end = changed_.size() - end;
    return std::max(in_text_, text_.size() - std::min(text_.size(), from_end));
  }

 private:
  void step() {
    const bool mark = changed_.substr(at_).starts_with(kSpaceMark);
    if (in_text_ < text_.size() && changed_[at_] == text_[in_text_]) {
      ++at_, ++in_text_;
    } else if (mark && in_text_ < text_.size() && text_[in_text_] == ' ') {
      at_ += kSpaceMark.size(), ++in_text_;
    } else if (at_ == 0 && (mark || changed_[0] == ' ')) {  // the prefix
      at_ += mark ? kSpaceMark.size() : 1;
    } else {
      lost_ = true;
    }
  }
  std::string_view text_, changed_;
  std::size_t at_ = 0, in_text_ = 0;
  bool lost_ = false;
};

std::vector<AddedToken> filtered(const std::vector<AddedToken>& all, bool normalized, bool with_special, const Normalizer& normalizer) {
  std::vector<AddedToken> out;
  for (AddedToken t : all) {
    if (t.normalized != normalized || (t.special && !with_special)) continue;
    if (normalized) t.content = normalizer(t.content);
    if (!t.content.empty()) out.push_back(std::move(t));
  }
  return out;
}

}  // namespace

BpeTokenizer::BpeTokenizer(BpeParts parts, std::string source) : parts_(std::move(parts)), source_(std::move(source)) {
  auto& tokens = parts_.tokens;
  constexpr std::int32_t kMost = 1 << 24;
  for (const AddedToken& t : parts_.added) {
    const auto n = static_cast<std::int32_t>(tokens.size());
    if (t.id < 0 || t.id >= n + static_cast<std::int32_t>(parts_.added.size()) || t.id >= kMost)
      fail(kOp, fmt::format("{}: added token `{}` has id {} in a vocabulary of {}", source_, t.content, t.id, n));
  }
  for (const AddedToken& t : parts_.added) {
    if (t.id >= static_cast<std::int32_t>(tokens.size())) tokens.resize(static_cast<std::size_t>(t.id) + 1);
    tokens[static_cast<std::size_t>(t.id)] = t.content;
  }
  const auto n = static_cast<std::int32_t>(tokens.size());
  const auto check_id = [&](std::optional<std::int32_t> id, std::string_view what) {
    if (id && (*id < 0 || *id >= n)) fail(kOp, fmt::format("{}: {} is token {}, 0 to {} were expected", source_, what, *id, n - 1));
  };
  check_id(parts_.unknown, "the unknown token");
  check_id(parts_.begin, "the token that begins a text");
  check_id(parts_.end, "the token that ends a text");

  ids_.reserve(tokens.size());
  bytes_.resize(tokens.size());
  special_.resize(tokens.size());
  std::fill(std::begin(byte_ids_), std::end(byte_ids_), -1);
  for (std::int32_t id = 0; id < n; ++id) {
    const std::string& token = tokens[static_cast<std::size_t>(id)];
    if (token.empty()) continue;  // a hole
    ids_.emplace(token, id);
    std::string& bytes = bytes_[static_cast<std::size_t>(id)];
    if (parts_.byte_level) {
      bytes = bytes_of_chars(token).value_or(token);
      if (bytes.size() == 1 && token == char_of_byte(static_cast<unsigned char>(bytes[0]))) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
    } else if (const auto byte = written_byte(token)) {
      bytes = std::string(1, static_cast<char>(*byte));
      byte_ids_[*byte] = id;
    } else {
      bytes = with_spaces(token);
    }
  }
  for (const AddedToken& t : parts_.added) {
    bytes_[static_cast<std::size_t>(t.id)] = t.content;
    if (t.special) special_[static_cast<std::size_t>(t.id)] = true;
  }

  MEZZO_CHECK(parts_.ranks.empty() || parts_.ranks.size() == parts_.merges.size());
  merges_.reserve(parts_.merges.size());
  for (std::size_t i = 0; i < parts_.merges.size(); ++i) {
    const auto& [left, right, result] = parts_.merges[i];
    MEZZO_CHECK(left >= 0 && left < n && right >= 0 && right < n && result >= 0 && result < n);
    merges_.add(left, right, {parts_.ranks.empty() ? static_cast<std::int32_t>(i) : parts_.ranks[i], result});
  }
  for (const bool special : {false, true}) {
    raw_[special] = AddedTokens(filtered(parts_.added, false, special, parts_.normalizer), source_);
    normalized_[special] = AddedTokens(filtered(parts_.added, true, special, parts_.normalizer), source_);
  }
}

// ---- encoding ----------------------------------------------------------------------------------------

/// One call of encode(): its output, and the words it has met.
class BpeTokenizer::Encoder {
 public:
  Encoder(const BpeTokenizer& t, bool special, Spans& out, bool spans) : t_(t), special_(special), spans_(spans), out_(out) {}

  void run(std::string_view text) {
    const std::string_view whole = text;
    cache_.resize(std::clamp<std::size_t>(std::bit_ceil(text.size() / 4 + 1), 16, kLargestCache));
    while (!text.empty()) {
      const auto bad = find_invalid_utf8(text);
      valid(text.substr(0, bad.value_or(text.size())), static_cast<std::size_t>(text.data() - whole.data()));
      if (!bad) return;
      text.remove_prefix(*bad);
      const std::size_t length = std::max<std::size_t>(1, utf8_unit(text).length);
      for (std::size_t i = 0; i < length; ++i) {
        push_byte(static_cast<unsigned char>(text[i]));
        end_at(static_cast<std::size_t>(text.data() - whole.data()) + i + 1);
      }
      text.remove_prefix(length);
    }
  }

 private:
  void valid(std::string_view text, std::size_t offset) {
    for (const auto& [piece, token] : t_.raw_[special_].split(text)) {
      const std::size_t at = offset + static_cast<std::size_t>(piece.data() - text.data());
      if (token) push(token->id, at + piece.size());
      else segment(piece, at);
    }
  }

  void push(std::int32_t id, std::size_t end) {
    out_.ids.push_back(id);
    end_at(end);
  }
  void end_at(std::size_t end) {
    if (spans_) out_.ends.resize(out_.ids.size(), static_cast<std::int64_t>(end));
  }

  /// Text between added tokens, which begins at `offset` of the whole.
  void segment(std::string_view text, std::size_t offset) {
    const BpeParts& p = t_.parts_;
    const bool prefixed = p.prefix == PrefixSpace::always || (p.prefix == PrefixSpace::first && offset == 0);
    if (p.normalizer.changes_nothing() && t_.normalized_[special_].empty() && !prefixed && !p.space_marks) {
      words(text, [&](std::size_t end) { return offset + end; });
      return;
    }
    kept_.push_back(p.normalizer(text));  // the cache's keys lie in it
    std::string& changed = kept_.back();
    Alignment align(text, changed);
    std::size_t base = 0;
    for (const auto& [piece, token] : t_.normalized_[special_].split(changed)) {
      if (token) {
        push(token->id, offset + align(base + piece.size()));
      } else if (prefixed || p.space_marks) {
        kept_.push_back(marked(piece, prefixed));
        Alignment inner(piece, kept_.back());
        words(kept_.back(), [&](std::size_t end) { return offset + align(base + inner(end)); });
      } else {
        words(piece, [&](std::size_t end) { return offset + align(base + end); });
      }
      base += piece.size();
    }
  }

  std::string marked(std::string_view text, bool prefixed) const {
    const std::string_view space = t_.parts_.space_marks ? kSpaceMark : " ";
    std::string out;
    if (prefixed && !text.starts_with(space) && !text.starts_with(' ')) out = space;
    for (const char c : text) c == ' ' ? out += space : out += c;
    return out;
  }

  template <class End> void words(std::string_view text, End end) {
    pieces_.clear();
    if (t_.parts_.split_at_marks) split_at_marks(text);
    else t_.parts_.splitter.split(text, pieces_);
    for (const std::string_view word : pieces_) {
      const std::size_t first = out_.ids.size();
      add_word(word);
      if (!spans_) continue;
      std::size_t at = static_cast<std::size_t>(word.data() - text.data());
      const std::size_t last = at + word.size();
      for (std::size_t i = first; i < out_.ids.size(); ++i) {
        const auto id = static_cast<std::size_t>(out_.ids[i]);
        const bool byte = !t_.parts_.byte_level && t_.byte_ids_[static_cast<unsigned char>(t_.bytes_[id][0])] == out_.ids[i];
        at += t_.parts_.byte_level || byte ? t_.bytes_[id].size() : t_.parts_.tokens[id].size();
        out_.ends.push_back(static_cast<std::int64_t>(end(i + 1 == out_.ids.size() ? last : std::min(at, last))));
      }
    }
  }

  void split_at_marks(std::string_view text) {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t next = std::min(text.find(kSpaceMark, begin + 1), text.size());
      pieces_.push_back(text.substr(begin, next - begin));
      begin = next;
    }
  }

  void add_word(std::string_view word) {
    Slot* slot = word.size() <= kLongestCached ? &cache_[std::hash<std::string_view>()(word) & (cache_.size() - 1)] : nullptr;
    if (slot && slot->size == word.size() && std::memcmp(slot->word, word.data(), word.size()) == 0) {
      out_.ids.insert(out_.ids.end(), slot->ids, slot->ids + slot->count);
      return;
    }
    tokenize(word);
    out_.ids.insert(out_.ids.end(), word_.begin(), word_.end());
    if (!slot || word_.size() > std::size(slot->ids)) return;
    slot->word = word.data();
    slot->size = static_cast<std::uint16_t>(word.size());
    slot->count = static_cast<std::uint16_t>(word_.size());
    std::copy(word_.begin(), word_.end(), slot->ids);
  }

  /// The tokens of a word, into word_.
  void tokenize(std::string_view word) {
    word_.clear();
    if (t_.parts_.ignore_merges) {
      std::string chars;
      const auto found = t_.ids_.find(t_.parts_.byte_level ? std::string_view(chars = chars_of_bytes(word)) : word);
      if (found != t_.ids_.end()) return word_.push_back(found->second);
    }
    if (t_.parts_.byte_level) {
      for (const char c : word) word_byte(static_cast<unsigned char>(c));
    } else {
      for (std::size_t i = 0; i < word.size();) {
        const std::string_view c = word.substr(i, utf8_unit(word.substr(i)).length);
        i += c.size();
        code_point(c);
      }
    }
    merger_.merge(t_.merges_, word_);
  }

  void word_byte(unsigned char b) {
    if (const std::int32_t id = t_.byte_ids_[b]; id >= 0) word_.push_back(id);
    else unknown();
  }

  void code_point(std::string_view c) {
    if (const auto found = t_.ids_.find(c); found != t_.ids_.end()) return word_.push_back(found->second);
    const bool bytes =
        t_.parts_.byte_fallback && std::all_of(c.begin(), c.end(), [&](char b) { return t_.byte_ids_[static_cast<unsigned char>(b)] >= 0; });
    if (!bytes) return unknown();
    for (const char b : c) word_.push_back(t_.byte_ids_[static_cast<unsigned char>(b)]);
  }

  /// A vocabulary without a token for what is unknown leaves it out, as Hugging Face's library and llama.cpp do.
  void unknown() {
    const auto id = t_.parts_.unknown;
    if (!id || (t_.parts_.fuse_unknown && !word_.empty() && word_.back() == *id)) return;
    word_.push_back(*id);
  }

  void push_byte(unsigned char b) {
    word_.clear();
    word_byte(b);
    out_.ids.insert(out_.ids.end(), word_.begin(), word_.end());
  }

  /// A word met before; another one with the same hash takes its place. The text outlives the encoder.
  struct Slot {
    const char* word = nullptr;
    std::uint16_t size = 0, count = 0;
    std::int32_t ids[5] = {};  // hardly a frequent word has more
  };
  static constexpr std::size_t kLongestCached = 64, kLargestCache = 1 << 15;
  const BpeTokenizer& t_;
  const bool special_, spans_;
  Spans& out_;
  Merger merger_;
  std::vector<std::int32_t> word_;
  std::vector<std::string_view> pieces_;
  std::vector<Slot> cache_;
  std::list<std::string> kept_;
};

std::vector<std::int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  Spans out;
  Encoder(*this, options.special, out, false).run(text);
  return std::move(out.ids);
}

Tokenizer::Spans BpeTokenizer::encode_spans(std::string_view text, const EncodeOptions& options) const {
  Spans out;
  Encoder(*this, options.special, out, true).run(text);
  return out;
}

// ---- decoding ----------------------------------------------------------------------------------------

std::string_view BpeTokenizer::bytes_of(std::int32_t id) const {
  if (id < 0 || id >= vocab_size()) fail("decode", fmt::format("token {}, 0 to {} were expected from {}", id, vocab_size() - 1, source_));
  return bytes_[static_cast<std::size_t>(id)];
}

std::string BpeTokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string out = Tokenizer::decode(ids);
  if (parts_.strip_first_space && out.starts_with(' ')) out.erase(0, 1);
  return out;
}

std::optional<std::int32_t> BpeTokenizer::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace mezzo::text
