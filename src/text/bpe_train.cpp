// bpe_train.cpp - learning merges: words counted once, pair counts kept up to date as merges are made, a heap that forgives stale entries.
#include "text/bpe_train.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/core.h>

#include "core/fail.h"
#include "text/byte_alphabet.h"
#include "text/utf8.h"

namespace mezzo::text {
namespace {

constexpr std::string_view kOp = "vocab";

std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

struct Word {
  std::vector<std::int32_t> ids;
  std::int64_t count = 0;
};

struct PairInfo {
  std::int64_t count = 0;
  std::vector<std::int32_t> words;  // that have or had it; some twice
};

struct Candidate {
  std::int64_t count;
  std::uint64_t pair;
  bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }  // the heap's top is the largest
};

class Trainer {
 public:
  Trainer(std::span<const std::string_view> texts, const BpeTrainOptions& options) : options_(options) {
    parts_.splitter.add(Regex(kGpt2Pattern, "the built-in pattern"));
    begin_vocabulary();
    count_words(texts);
    count_pairs();
  }

  BpeParts run() {
    while (static_cast<std::int32_t>(parts_.tokens.size()) < options_.vocab) {
      const std::uint64_t pair = most_frequent();
      merge(static_cast<std::int32_t>(pair >> 32), static_cast<std::int32_t>(pair));
    }
    return std::move(parts_);
  }

 private:
  void begin_vocabulary() {
    const auto least = static_cast<std::int32_t>(options_.special.size()) + 256;
    constexpr std::int32_t kMost = 1 << 20;
    if (options_.vocab < least || options_.vocab > kMost)
      fail(kOp, fmt::format("a vocabulary of {} tokens, {} to {} were expected ({} special, 256 bytes, and merges)", options_.vocab, least, kMost,
                            options_.special.size()));
    for (const std::string& token : options_.special) {
      parts_.added.push_back({.content = token, .id = static_cast<std::int32_t>(parts_.tokens.size())});
      add_token(token);
    }
    if (!options_.special.empty()) parts_.end = 0;
    std::vector<std::string> alphabet;
    for (int b = 0; b < 256; ++b) alphabet.emplace_back(char_of_byte(static_cast<unsigned char>(b)));
    std::sort(alphabet.begin(), alphabet.end());  // UTF-8 sorts as code points do
    for (const std::string& c : alphabet) {
      byte_ids_[static_cast<unsigned char>((*bytes_of_chars(c))[0])] = static_cast<std::int32_t>(parts_.tokens.size());
      add_token(c);
    }
  }

  void add_token(const std::string& token) {
    ids_.emplace(token, static_cast<std::int32_t>(parts_.tokens.size()));
    parts_.tokens.push_back(token);
  }

  void count_words(std::span<const std::string_view> texts) {
    constexpr std::size_t kChunk = 1 << 20;  // pieces live no longer than one
    std::unordered_map<std::string_view, std::size_t> seen;
    std::vector<std::string_view> pieces;
    for (std::string_view text : texts) {
      if (const auto bad = find_invalid_utf8(text)) fail(kOp, fmt::format("byte {} of a text is not UTF-8", *bad));
      while (!text.empty()) {
        std::size_t size = std::min(text.size(), kChunk);
        if (size < text.size()) {  // to the end of a line, where words end too (a chunk of one line may cut one word)
          if (const auto line = text.rfind('\n', size); line != text.npos && line > 0) size = line;
          while (size > 1 && (text[size] & 0xC0) == 0x80) --size;
        }
        pieces.clear();
        parts_.splitter.split(text.substr(0, size), pieces);
        for (const std::string_view piece : pieces) {
          const auto [entry, fresh] = seen.try_emplace(piece, words_.size());
          if (fresh) {
            Word& w = words_.emplace_back();
            for (const char c : piece) w.ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
          }
          ++words_[entry->second].count;
        }
        text.remove_prefix(size);
      }
    }
  }

  void count_pairs() {
    for (std::size_t w = 0; w < words_.size(); ++w)
      for (std::size_t i = 0; i + 1 < words_[w].ids.size(); ++i) change(words_[w].ids[i], words_[w].ids[i + 1], static_cast<std::int32_t>(w), 1);
    for (const auto& [pair, info] : pairs_)
      if (info.count > 0) heap_.push_back({info.count, pair});
    std::make_heap(heap_.begin(), heap_.end());
  }

  void change(std::int32_t left, std::int32_t right, std::int32_t word, int by) {
    PairInfo& info = pairs_[key_of(left, right)];
    info.count += by * words_[static_cast<std::size_t>(word)].count;
    if (by > 0 && (info.words.empty() || info.words.back() != word)) info.words.push_back(word);
  }

  std::uint64_t most_frequent() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate top = heap_.back();
      heap_.pop_back();
      const std::int64_t count = pairs_[top.pair].count;
      if (count == top.count) return top.pair;
      if (count > 0 && count < top.count) push({count, top.pair});  // it has become rarer; a rise has an entry of its own
    }
    fail(kOp, fmt::format("{} tokens wanted, the text has pairs for {}", options_.vocab, parts_.tokens.size()),
         "give more text, or a smaller --vocab");
  }

  void push(Candidate c) {
    heap_.push_back(c);
    std::push_heap(heap_.begin(), heap_.end());
  }

  void merge(std::int32_t left, std::int32_t right) {
    const std::string token = parts_.tokens[static_cast<std::size_t>(left)] + parts_.tokens[static_cast<std::size_t>(right)];
    const auto known = ids_.find(token);
    const std::int32_t result = known != ids_.end() ? known->second : static_cast<std::int32_t>(parts_.tokens.size());
    if (known == ids_.end()) add_token(token);
    parts_.merges.push_back({left, right, result});

    std::vector<std::int32_t> words = std::move(pairs_[key_of(left, right)].words);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    risen_.clear();
    for (const std::int32_t w : words) merge_in(w, left, right, result);
    pairs_.erase(key_of(left, right));
    std::sort(risen_.begin(), risen_.end());
    risen_.erase(std::unique(risen_.begin(), risen_.end()), risen_.end());
    for (const std::uint64_t pair : risen_)
      if (const auto at = pairs_.find(pair); at != pairs_.end() && at->second.count > 0) push({at->second.count, pair});
  }

  void merge_in(std::int32_t w, std::int32_t left, std::int32_t right, std::int32_t result) {
    auto& ids = words_[static_cast<std::size_t>(w)].ids;
    std::size_t out = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (i + 1 == ids.size() || ids[i] != left || ids[i + 1] != right) {
        ids[out++] = ids[i];
        continue;
      }
      if (out > 0) {  // out <= i: what stands before is already in its final form
        change(ids[out - 1], left, w, -1);
        rise(ids[out - 1], result, w);
      }
      if (i + 2 < ids.size()) {
        change(right, ids[i + 2], w, -1);
        rise(result, ids[i + 2], w);
      }
      ids[out++] = result;
      ++i;
    }
    ids.resize(out);
  }

  void rise(std::int32_t left, std::int32_t right, std::int32_t w) {
    change(left, right, w, 1);
    risen_.push_back(key_of(left, right));
  }

  BpeTrainOptions options_;
  BpeParts parts_;
  std::int32_t byte_ids_[256];
  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<Word> words_;
  std::unordered_map<std::uint64_t, PairInfo> pairs_;
  std::vector<Candidate> heap_;
  std::vector<std::uint64_t> risen_;
};

}  // namespace

BpeParts train_bpe(std::span<const std::string_view> texts, const BpeTrainOptions& options) { return Trainer(texts, options).run(); }

}  // namespace mezzo::text
