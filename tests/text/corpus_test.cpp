// corpus_test.cpp - which files are taken, what is refused, and that the split leaks nothing.
#include "text/corpus.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cctype>
#include <cmath>

#include "io/support.h"

using namespace mezzo;
using namespace mezzo::test;
using text::Corpus;
using text::CorpusOptions;
using text::TokenStream;

namespace {

const ByteTokenizer kBytes;

std::vector<std::int32_t> all_of(const TokenStream& s) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(s.size()));
  s.read(0, out);
  return out;
}
std::string text_of(const TokenStream& s) { return kBytes.decode(all_of(s)); }
std::string repeated(std::string_view unit, int n) {
  std::string out;
  while (n-- > 0) out += unit;
  return out;
}

/// Words are tokens: their lengths. Stands in for tokenizers whose tokens are not bytes.
struct WordLengths final : Tokenizer {
  std::string_view kind() const override { return "words"; }
  std::int32_t vocab_size() const override { return 1000; }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& = {}) const override {
    std::vector<std::int32_t> out;
    bool in_word = false;
    for (const char c : text) {
      const bool letter = !std::isspace(static_cast<unsigned char>(c));
      if (letter && !in_word) out.push_back(0);
      if (letter) ++out.back();
      in_word = letter;
    }
    return out;
  }
  std::string_view bytes_of(std::int32_t) const override { return "?"; }
  std::optional<std::int32_t> end_of_text() const override { return 999; }
};

}  // namespace

TEST_CASE("corpus: one file, the last part for validation") {
  const TempDir dir;
  const std::string text = repeated("0123456789", 100);
  spit(dir / "a.txt", text);
  const Corpus corpus(dir / "a.txt", kBytes, {.seq = 20});
  CHECK(corpus.files() == 1);
  CHECK(corpus.bytes() == 1000);
  CHECK(text_of(corpus.train()) == text.substr(0, 900));
  CHECK(text_of(corpus.validation()) == text.substr(900));
  const Corpus whole(dir / "a.txt", kBytes, {.seq = 20, .val_fraction = 0});
  CHECK(text_of(whole.train()) == text);
  CHECK(whole.validation().size() == 0);
}

TEST_CASE("corpus: a directory is its text files by path; links, indexes and hidden names are passed over") {
  const TempDir dir;
  spit(dir / "b", repeated("b", 100));
  spit(dir / "b.dat", "\xff\xfe index");
  spit(dir / "a/z", repeated("z", 70'000));  // mapped
  spit(dir / "a/empty", "");
  spit(dir / "a-first", repeated("f", 50));
  spit(dir / "lonely.dat", repeated("l", 30));  // no file `lonely`: text like any other
  spit(dir / ".hidden", "\xff");
  spit(dir / ".git/x", "\xff");
  std::filesystem::create_symlink("b", dir / "b.u8");
  std::filesystem::create_directory_symlink(dir.path(), dir / "loop");
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  const Corpus corpus(dir.path(), kBytes, {.seq = 8, .val_fraction = 0});
  CHECK(text_of(corpus.train()) == repeated("f", 50) + repeated("z", 70'000) + repeated("b", 100) + repeated("l", 30));
  CHECK(corpus.files() == 4);

  // The directory itself may be reached through a link.
  std::filesystem::create_directory_symlink(dir / "a", dir / "to-a");
  CHECK(Corpus(dir / "to-a", kBytes, {.seq = 8}).bytes() == 70'000);
}

TEST_CASE("corpus: validation comes from every file, cut between code points") {
  const TempDir dir;
  spit(dir / "a", repeated("\u20ac", 100));                              // 300 bytes: a tenth would be 30, ten whole signs
  spit(dir / "b", std::string("x").append(repeated("\U0001F600", 33)));  // 133 bytes, 14 for validation: back to the begin of a sign, 16
  const Corpus corpus(dir.path(), kBytes, {.seq = 8});
  CHECK(text_of(corpus.train()) == repeated("\u20ac", 90) + "x" + repeated("\U0001F600", 29));
  CHECK(text_of(corpus.validation()) == repeated("\u20ac", 10) + repeated("\U0001F600", 4));
}

TEST_CASE("corpus: a fraction too small for one sequence is raised until one fits, up to one half") {
  const TempDir dir;
  spit(dir / "a", std::string(400, 'a'));
  CHECK(Corpus(dir / "a", kBytes, {.seq = 39}).validation().size() == 40);
  CHECK(Corpus(dir / "a", kBytes, {.seq = 40}).validation().size() == 80);
  CHECK(Corpus(dir / "a", kBytes, {.seq = 199}).validation().size() == 200);
  CHECK(Corpus(dir / "a", kBytes, {.seq = 199}).train().size() == 200);
  const std::string error = error_of([&] { Corpus(dir / "a", kBytes, {.seq = 200}); });
  CHECK(contains(
      error, "[data] " + (dir / "a").native() + ": too short: 200 tokens for training and 200 for validation, at least 201 were expected of each"));
  CHECK(Corpus(dir / "a", kBytes, {.seq = 399, .val_fraction = 0}).train().size() == 400);
  CHECK(contains(error_of([&] { Corpus(dir / "a", kBytes, {.seq = 400, .val_fraction = 0}); }),
                 ": too short: 400 tokens, at least 401 were expected ("));
}

TEST_CASE("corpus: what cannot be used is one clear line") {
  const TempDir dir;
  const auto error = [&](std::string_view name, CorpusOptions options = {.seq = 8}) {
    return error_of([&] { Corpus(dir / name, kBytes, options); });
  };
  CHECK(contains(error("none"), "[data] " + (dir / "none").native() + ": no such file or directory"));
  spit(dir / "empty", "");
  CHECK(contains(error("empty"), "empty, text was expected"));
  spit(dir / "dir/.hidden", "x");
  CHECK(contains(error("dir"), "no text file in this directory (passed over: 1 hidden, 0 symbolic links, 0 others)"));
  spit(dir / "dir/empty", "");
  CHECK(contains(error("dir"), "empty, text was expected"));
  for (const std::size_t at : {std::size_t{0}, std::size_t{100}, std::size_t{69'999}}) {
    std::string text(70'000, 'x');
    text[at] = '\xe9';  // Latin-1
    spit(dir / "dir/latin1", text);
    CHECK(contains(error("dir"), (dir / "dir/latin1").native() + ": byte " + std::to_string(at) + " (0xe9) is not UTF-8"));
  }
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(contains(error("fifo"), "a regular file was expected"));
  spit(dir / "good", std::string(100, 'x'));
  CHECK(contains(error("good/below"), "no such file or directory"));
  CHECK(contains(error("good", {.seq = 0}), "at least 1"));
  for (const double bad : {-0.1, 1.0, std::nan("")}) CHECK(contains(error("good", {.seq = 8, .val_fraction = bad}), "one in [0, 1)"));

  // Unreadable: root reads everything, so as somebody else where we can be.
  spit(dir / "secret", std::string(100, 'x'));
  ::chmod((dir / "secret").c_str(), 0);
  ::chmod(dir.path().c_str(), 0755);
  const int status = in_child([&] {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return 0;
    return contains(error("secret"), (dir / "secret").native() + ": Permission denied") ? 0 : 1;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("corpus: other tokenizers' ids, each part ended where the vocabulary can") {
  const TempDir dir;
  spit(dir / "a", repeated("a bb ccc ", 20));  // 180 bytes, the last 18 for validation
  spit(dir / "b", repeated("dddd ", 20));
  const Corpus corpus(dir.path(), WordLengths{}, {.seq = 4});
  const auto train = all_of(corpus.train()), validation = all_of(corpus.validation());
  REQUIRE(train.size() == 54 + 1 + 18 + 1);
  CHECK(train[53] == 3);
  CHECK(train[54] == 999);
  CHECK(train[55] == 4);
  CHECK(train.back() == 999);
  CHECK(validation == std::vector<std::int32_t>{1, 2, 3, 1, 2, 3, 999, 4, 4, 999});
}

TEST_CASE("corpus: the fingerprint tells the text, and moving a corpus keeps its streams") {
  const TempDir dir;
  spit(dir / "1/a", "some text for two files");
  spit(dir / "1/b", "and the rest of it");
  spit(dir / "2/a", "some text for two files");
  spit(dir / "2/b", "and the rest of it");
  spit(dir / "3/a", "some text for two filesand");
  spit(dir / "3/b", " the rest of it");
  const auto of = [&](std::string_view name) { return Corpus(dir / name, kBytes, {.seq = 2}); };
  CHECK(of("1").fingerprint() == of("2").fingerprint());
  CHECK(of("1").fingerprint() != of("3").fingerprint());
  Corpus a = of("1");
  const std::string before = text_of(a.train());
  const Corpus b = std::move(a);
  CHECK(text_of(b.train()) == before);
}

TEST_CASE("TokenStream: any range over any pieces") {
  const std::vector<std::int32_t> ids{1000, 1001, 1002};
  const std::vector<std::uint8_t> bytes{1, 2, 3, 4, 5};
  TokenStream s;
  s.append(std::span(bytes).first(1));
  s.append(std::span(ids));
  s.append(std::span(bytes).first(0));
  s.append(std::span(bytes));
  const std::vector<std::int32_t> wanted{1, 1000, 1001, 1002, 1, 2, 3, 4, 5};
  REQUIRE(s.size() == 9);
  for (std::size_t first = 0; first <= 9; ++first)
    for (std::size_t n = 0; first + n <= 9; ++n) {
      std::vector<std::int32_t> out(n);
      s.read(static_cast<std::int64_t>(first), out);
      REQUIRE(std::equal(out.begin(), out.end(), wanted.begin() + static_cast<std::ptrdiff_t>(first)));
    }
  std::vector<std::int32_t> out(2);
  CHECK_THROWS_AS(s.read(8, out), std::logic_error);
  CHECK_THROWS_AS(s.read(-1, out), std::logic_error);
}
