// load_tokenizer.cpp - the tokenizer of a model directory or file.
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/file.h"
#include "io/json.h"
#include "text/tokenizer_files.h"

namespace mezzo {
namespace {

namespace fs = std::filesystem;

/// The text of a token in tokenizer_config.json: a string, or an object whose `content` it is.
std::optional<std::string> token_text(const io::Json& config, const char* key) {
  auto it = config.find(key);
  if (it == config.end()) return std::nullopt;
  if (it->is_object()) {
    const auto content = it->find("content");
    if (content == it->end()) return std::nullopt;
    return content->is_string() ? std::optional(content->get<std::string>()) : std::nullopt;
  }
  return it->is_string() ? std::optional(it->get<std::string>()) : std::nullopt;
}

std::shared_ptr<const Tokenizer> from_json(const fs::path& file) {
  text::BpeParts parts = text::parse_tokenizer_json(io::read_file(file), file.native());
  const fs::path config_file = file.parent_path() / "tokenizer_config.json";
  if (std::error_code ignored; fs::is_regular_file(config_file, ignored)) {
    const io::Json config = io::read_json(config_file);
    const auto id = [&](const char* key) -> std::optional<std::int32_t> {
      const auto text = token_text(config, key);
      if (!text) return std::nullopt;
      for (const auto& t : parts.added)
        if (t.content == *text) return t.id;
      for (std::size_t i = 0; i < parts.tokens.size(); ++i)
        if (parts.tokens[i] == *text) return static_cast<std::int32_t>(i);
      return std::nullopt;
    };
    if (const auto begin = id("bos_token")) parts.begin = begin;
    parts.end = id("eos_token");
    if (const auto it = config.find("add_bos_token"); it != config.end() && it->is_boolean()) parts.adds_begin = it->get<bool>() && parts.begin;
  }
  return std::make_shared<text::BpeTokenizer>(std::move(parts), file.native());
}

bool is_gguf(const fs::path& path) { return io::MappedFile(path).text().starts_with("GGUF"); }

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
      if (fs::is_regular_file(path / name, error)) return load_tokenizer(path / name);
    fail("tokenizer", fmt::format("{}: neither tokenizer.json nor tokenizer.model is in it", path.native()));
  }
  if (path.extension() == ".json") return from_json(path);
  if (is_gguf(path)) {
    const io::GgufFile file(path);
    return std::make_shared<text::BpeTokenizer>(text::tokenizer_of_gguf(file), path.native());
  }
  return text::load_sentencepiece(path);
}

}  // namespace mezzo
