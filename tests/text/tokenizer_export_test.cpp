// tokenizer_export_test.cpp - tokenizers written with exported models give the ids they gave before.
#include <doctest/doctest.h>

#include <fstream>

#include <nlohmann/json.hpp>

#include <mezzo/text.h>

#include "io/gguf.h"
#include "io/json.h"
#include "io/support.h"
#include "model_file.h"
#include "text/tokenizer_files.h"

using namespace mezzo;
using namespace mezzo::test;

namespace {

const std::filesystem::path kFolder = "tests/golden/tokenizers";

void check_same(const Tokenizer& got, const Tokenizer& wanted) {
  std::ifstream lines("tests/golden/mixed_text.txt");
  std::int64_t others = 0;
  for (std::string line; std::getline(lines, line);) others += got.encode(line) != wanted.encode(line);
  CHECK(others == 0);
  CHECK(got.end_of_text() == wanted.end_of_text());
  CHECK(got.adds_begin_of_text() == wanted.adds_begin_of_text());
  CHECK(got.encode("<|im_end|></s> x") == wanted.encode("<|im_end|></s> x"));
}

}  // namespace

TEST_CASE("tokenizer.json into GGUF's metadata") {
  const TempDir dir;
  for (const std::string name : {"smollm.json", "qwen2.json", "llama3.json"}) {
    CAPTURE(name);
    const auto wanted = load_tokenizer(kFolder / name);
    std::filesystem::create_directories(dir / name);
    io::write_json(dir / name / "tokenizer_config.json", {{"chat_template", "{{ messages }}"}});
    io::GgufMetadata m;
    m.put("general.architecture", "llama");
    text::put_tokenizer(*wanted, dir / name, m);
    io::write_gguf(dir / "t.gguf", m, {});
    check_same(*load_tokenizer(dir / "t.gguf"), *wanted);
    CHECK(text::chat_template_text(dir / "t.gguf") == "{{ messages }}");
  }
  const ByteTokenizer bytes;
  io::GgufMetadata m;
  text::put_tokenizer(bytes, dir.path(), m);
  io::write_gguf(dir / "t.gguf", m, {});
  check_same(*load_tokenizer(dir / "t.gguf"), bytes);
  CHECK(contains(error_of([&] { text::put_tokenizer(*load_tokenizer(kFolder / "bpe.model"), dir.path(), m); }), "has no place in a GGUF file"));
  CHECK(contains(error_of([&] { text::put_tokenizer(*load_tokenizer(kFolder / "gpt2.json"), dir.path(), m); }), "` takes what is beside it along"));
}

TEST_CASE("GGUF's metadata into Hugging Face's files") {
  const TempDir dir;
  std::vector<std::filesystem::path> files{kFolder / "spm.gguf"};
  if (const auto real = smollm2_path()) files.push_back(*real);
  for (const auto& file : files) {
    CAPTURE(file.native());
    text::copy_tokenizer(file, dir.path(), 8192);
    check_same(*load_tokenizer(dir.path()), *load_tokenizer(file));
    CHECK(text::chat_template_text(dir.path()) == text::chat_template_text(file));
    CHECK(io::read_json(dir / "tokenizer_config.json")["model_max_length"] == 8192);
  }
}
