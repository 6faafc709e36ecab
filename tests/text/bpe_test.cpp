// bpe_test.cpp - merging against the plain definition, training against Hugging Face's trainer, and tokenizer files in and out.
#include <fstream>
#include <random>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/support.h"
#include "text/bpe.h"
#include "text/bpe_train.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer_files.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::text;

namespace {

/// The definition: find the pair of lowest rank, the leftmost of them, join it, begin again.
std::vector<std::int32_t> merged_plainly(const MergeTable& table, std::vector<std::int32_t> ids) {
  while (true) {
    const MergeTable::Merge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i)
      if (const auto* m = table.find(ids[i], ids[i + 1]); m && (!best || m->rank < best->rank)) best = m, at = i;
    if (!best) return ids;
    ids[at] = best->result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::string mixed_lines() {
  std::string text = slurp("tests/golden/mixed_text.txt");
  return text;
}

}  // namespace

TEST_CASE("Merger: random merges of random words, as the definition has it") {
  std::mt19937 engine(5);
  const auto below = [&](int n) { return static_cast<std::int32_t>(engine() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 300; ++round) {
    MergeTable table;
    const int letters = 1 + below(4), merges = below(30);
    for (int m = 0; m < merges; ++m) table.add(below(letters + m), below(letters + m), {below(5) == 0 ? m / 2 : m, letters + m});
    Merger merger;
    for (const int length : {0, 1, 2, 3, 7, 40, 200}) {
      std::vector<std::int32_t> ids;
      for (int i = 0; i < length; ++i) ids.push_back(below(letters));
      const auto want = merged_plainly(table, ids);
      merger.merge(table, ids);
      REQUIRE(ids == want);
    }
  }
}

TEST_CASE("Merger: a long word takes no quadratic time") {
  MergeTable table;
  for (std::int32_t i = 0; i < 16; ++i) table.add(i, i, {i, i + 1});  // a word of equal letters folds in half again and again
  std::vector<std::int32_t> ids(1 << 20, 0);
  Merger().merge(table, ids);
  CHECK(ids == std::vector<std::int32_t>(1 << 4, 16));
}

TEST_CASE("byte alphabet: all bytes, both ways") {
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  CHECK(bytes_of_chars(chars_of_bytes(all)) == all);
  CHECK(chars_of_bytes(" \n") == "\u0120\u010A");
  CHECK_FALSE(bytes_of_chars("\u2581"));
  CHECK_FALSE(bytes_of_chars(" "));
}

TEST_CASE("train_bpe: the vocabulary and merges of Hugging Face's trainer") {
  // The script trains on the lines one by one, U+2424 standing for a line feed.
  std::vector<std::string> lines;
  std::istringstream in(mixed_lines());
  for (std::string line; std::getline(in, line);) {
    std::string& text = lines.emplace_back();
    constexpr std::string_view kLineFeed = "\xE2\x90\xA4";
    std::string_view rest = line;
    for (std::size_t at; (at = rest.find(kLineFeed)) != rest.npos; rest.remove_prefix(at + kLineFeed.size())) (text += rest.substr(0, at)) += '\n';
    text += rest;
  }
  const std::vector<std::string_view> texts(lines.begin(), lines.end());
  const BpeParts parts = train_bpe(texts, {.vocab = 600, .special = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}});
  const io::Json want = io::read_json("tests/golden/tokenizers/trained.json");
  CHECK(parts.tokens == want["vocab"].get<std::vector<std::string>>());
  REQUIRE(parts.merges.size() == want["merges"].size());
  for (std::size_t i = 0; i < parts.merges.size(); ++i) {
    CAPTURE(i);
    CHECK(parts.tokens[static_cast<std::size_t>(parts.merges[i].left)] == want["merges"][i][0].get<std::string>());
    CHECK(parts.tokens[static_cast<std::size_t>(parts.merges[i].right)] == want["merges"][i][1].get<std::string>());
  }
}

TEST_CASE("train_bpe: what is trained is written and read back, and takes any text") {
  const std::string text = mixed_lines();
  const std::vector<std::string_view> texts{text};
  const BpeParts parts = train_bpe(texts, {.vocab = 400});
  const BpeTokenizer trained(parts, "trained");
  CHECK(trained.vocab_size() == 400);
  CHECK(trained.end_of_text() == 0);
  TempDir dir;
  spit(dir / "tokenizer.json", to_tokenizer_json(parts));
  spit(dir / "tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  const auto read = load_tokenizer(dir.path());
  CHECK(read->vocab_size() == 400);
  CHECK(read->end_of_text() == 0);
  CHECK(read->encode(text) == trained.encode(text));
  CHECK(trained.decode(trained.encode(text)) == text);
  const std::string bytes("\xff\x00\xc3 ok \xe2\x82", 9);  // not UTF-8
  CHECK(trained.decode(trained.encode(bytes)) == bytes);
  const auto spans = trained.encode_spans(bytes);
  CHECK(spans.ends.back() == 9);

  CHECK(contains(error_of([&] { train_bpe(texts, {.vocab = 256}); }), "a vocabulary of 256 tokens, 257 to 1048576 were expected"));
  const std::vector<std::string_view> little{"ab ab"};
  CHECK(contains(error_of([&] { train_bpe(little, {.vocab = 300}); }), "[vocab] 300 tokens wanted, the text has pairs for 259"));
}

TEST_CASE("tokenizer.json: what cannot be followed is an error that names it") {
  const auto says = [](std::string_view json, std::string_view part) {
    const std::string error = error_of([&] { BpeTokenizer(parse_tokenizer_json(json, "t.json"), "t.json"); });
    INFO(error);
    CHECK(contains(error, part));
    CHECK(contains(error, "t.json"));
  };
  const auto with = [](std::string_view more, std::string_view model = R"("vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])") {
    return fmt::format(R"({{{}"model":{{"type":"BPE",{}}}}})", more, model);
  };
  says("{", "t.json:1:2: ");
  says("[]", "the file is array, an object was expected");
  says("{}", "`model` is missing");
  says(R"({"model":{"type":"WordPiece"}})", "a WordPiece model, BPE was expected");
  says(with("", R"("vocab":{"a":0})"), "`merges` is missing");
  says(with("", R"("vocab":{"a":-1},"merges":[])"), "the id of `a` is -1");
  says(with("", R"("vocab":{"a":1000000000},"merges":[])"), "token `a` has id 1000000000 in a vocabulary of 1");
  says(with("", R"("vocab":{"a":0,"b":0},"merges":[])"), "tokens `a` and `b` both have id 0");
  says(with("", R"("vocab":{"a":0},"merges":["a"])"), "merge 0 is \"a\", two tokens was expected");
  says(with("", R"("vocab":{"a":0},"merges":["a b"])"), "merge 0 is `b`, which is not in the vocabulary");
  says(with("", R"("dropout":0.1,"vocab":{},"merges":[])"), "model.dropout");
  says(with(R"("normalizer":{"type":"Lowercase"},)"), "normalizer is `Lowercase`, which this version does not follow");
  says(with(R"("pre_tokenizer":{"type":"Whitespace"},)"), "pre_tokenizer is `Whitespace`");
  says(with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"},)"), "the pattern `(a` is wrong");
  says(with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Removed"},)"), "pre_tokenizer Split is `Removed`");
  says(with(R"("added_tokens":[{"id":9,"content":"x"}],)"), "added token `x` has id 9 in a vocabulary of 3");
  says(with(R"("added_tokens":[{"id":0,"content":7}],)"), "`content` is 7, a string was expected");
  says(with(R"("post_processor":{"type":"BertProcessing"},)"), "post_processor is `BertProcessing`");
  says(with("", std::string(R"("unk_token":)") + std::string(5000, '[')), "t.json:1:");
  CHECK(error_of([&] { parse_tokenizer_json(with(R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel"},)"), "t.json"); }) == "no error");
}
