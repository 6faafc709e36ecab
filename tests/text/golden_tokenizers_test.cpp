// golden_tokenizers_test.cpp - the ids that Hugging Face's and Google's libraries give two thousand lines of mixed text, with every kind of
// tokenizer.
#include <fstream>

#include <doctest/doctest.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/support.h"
#include "model_file.h"
#include "text/tokenizer_files.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

const std::filesystem::path kFolder = "tests/golden/tokenizers";

/// The lines of mixed_text.txt, in which U+2424 stands for a line feed.
std::vector<std::string> mixed_text() {
  constexpr std::string_view kLineFeed = "\xE2\x90\xA4";
  std::vector<std::string> lines;
  std::ifstream in("tests/golden/mixed_text.txt", std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    std::string& text = lines.emplace_back();
    std::string_view rest = line;
    for (std::size_t at; (at = rest.find(kLineFeed)) != rest.npos; rest.remove_prefix(at + kLineFeed.size())) (text += rest.substr(0, at)) += '\n';
    text += rest;
  }
  return lines;
}

std::uint64_t add(std::uint64_t hash, std::int32_t id) {  // FNV-1a
  for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (static_cast<std::uint32_t>(id) >> shift & 255)) * 0x100000001B3u;
  return hash;
}

void check_ids(const Tokenizer& tokenizer, const std::string& golden, const EncodeOptions& options = {}) {
  const auto lines = mixed_text();
  REQUIRE(lines.size() == 2000);
  const io::Json want = io::read_json(kFolder / "ids.json").at(golden);
  REQUIRE(want.size() == lines.size() / 8);
  int wrong = 0;
  for (std::size_t group = 0; group < want.size(); ++group) {
    std::uint64_t hash = 0xCBF29CE484222325u;
    for (std::size_t i = group * 8; i < group * 8 + 8; ++i) {
      for (const auto id : tokenizer.encode(lines[i], options)) hash = add(hash, id);
      hash = add(hash, -1);
    }
    if (fmt::format("{:016x}", hash) == want[group].get<std::string>()) continue;
    if (++wrong == 1) MESSAGE(golden, ": first in the eight lines from ", group * 8 + 1);
  }
  CHECK_MESSAGE(wrong == 0, golden, ": ", wrong, " of ", want.size(), " groups of lines differ");
}

/// Every byte of a text is accounted for: ends rise to its length, and what tokens stand for is what the text has there.
void check_spans(const Tokenizer& tokenizer, bool exact) {
  const auto lines = mixed_text();
  for (std::size_t i = 0; i < lines.size(); i += 7) {
    const std::string& text = lines[i];
    CAPTURE(text);
    const auto [ids, ends] = tokenizer.encode_spans(text);
    REQUIRE(ids == tokenizer.encode(text));
    REQUIRE(ends.size() == ids.size());
    std::int64_t before = 0;
    bool rising = true, same = true;
    for (std::size_t k = 0; k < ids.size(); ++k) {
      rising = rising && ends[k] >= before;
      if (exact)
        same = same && text.substr(static_cast<std::size_t>(before), static_cast<std::size_t>(ends[k] - before)) == tokenizer.bytes_of(ids[k]);
      before = ends[k];
    }
    CHECK(rising);
    CHECK(same);
    CHECK((text.empty() || before == static_cast<std::int64_t>(text.size())));
    if (exact) CHECK(tokenizer.decode(ids) == text);
  }
}

}  // namespace

TEST_CASE("tokenizer.json: byte-level BPE as Hugging Face has it") {
  for (const char* name : {"smollm", "llama3"}) {
    CAPTURE(name);
    const auto t = load_tokenizer(kFolder / (std::string(name) + ".json"));
    check_ids(*t, name);
    check_spans(*t, true);
  }
  const auto gpt2 = load_tokenizer(kFolder / "gpt2.json");  // has tokens that swallow spaces and stand alone
  check_ids(*gpt2, "gpt2");
  check_spans(*gpt2, false);
  const auto qwen2 = load_tokenizer(kFolder / "qwen2.json");  // NFC
  check_ids(*qwen2, "qwen2");
  check_spans(*qwen2, false);
  CHECK(qwen2->encode("e\xCC\x81") == qwen2->encode("\xC3\xA9"));
}

TEST_CASE("tokenizer.json: SentencePiece's pieces, bytes to fall back on") {
  const auto t = load_tokenizer(kFolder / "llama2.json");
  check_ids(*t, "llama2");
  check_spans(*t, false);
  CHECK(t->begin_of_text() == t->find("<s>"));
  CHECK(t->adds_begin_of_text());
  for (const std::string text : {"Hello world", " two", "\xF0\x9F\x98\x80 ok", "a\nb\tc"}) CHECK(t->decode(t->encode(text)) == text);
  CHECK(t->decode(t->encode("<s>x")) == "<s> x");
}

TEST_CASE("SentencePiece models, and their pieces and scores in a GGUF file") {
  for (const char* name : {"bpe.model", "unigram.model"}) {
    CAPTURE(name);
    const auto t = load_tokenizer(kFolder / name);
    check_ids(*t, name, {.special = false});  // Google's library knows no marks in text
    check_spans(*t, false);
    CHECK(t->find("<s>") == t->begin_of_text());
    CHECK(t->decode(t->encode(" Precision")) == " Precision");
  }
  const auto gguf = load_tokenizer(kFolder / "spm.gguf");
  check_ids(*gguf, "llama2");  // which are the same pieces
  CHECK(gguf->find("</s>") == gguf->end_of_text());
  CHECK(gguf->adds_begin_of_text());
}

TEST_CASE("SmolLM2's tokenizer out of its GGUF file") {
  const auto path = smollm2_path();
  if (!path) return;
  const auto t = load_tokenizer(*path);
  CHECK(t->vocab_size() == 49152);
  CHECK(t->find("<|im_end|>") == t->end_of_text());
  CHECK_FALSE(t->adds_begin_of_text());
  CHECK(t->is_special(2));
  check_ids(*t, "smollm2");
  check_spans(*t, false);  // it has no token for some control characters
  CHECK(t->encode("<|im_start|>") == std::vector<std::int32_t>{1});
  CHECK(t->encode("<|im_start|>", {.special = false}).size() > 1);
}
