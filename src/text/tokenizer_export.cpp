// tokenizer_export.cpp - the tokenizer that goes with an exported model: Hugging Face's files, or GGUF's metadata.
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "io/file.h"
#include "io/json.h"
#include "io/shown.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer_files.h"

namespace mezzo::text {
namespace {

namespace fs = std::filesystem;

bool is_file(const fs::path& p) {
  std::error_code ignored;
  return fs::is_regular_file(p, ignored);
}

void write_files(const io::GgufFile& gguf, const fs::path& dir, std::int64_t context) {
  const BpeParts parts = tokenizer_of_gguf(gguf);
  io::write_file(dir / "tokenizer.json", to_tokenizer_json(parts));
  io::Json config{{"tokenizer_class", "PreTrainedTokenizerFast"},
                  {"model_max_length", context},
                  {"clean_up_tokenization_spaces", false},
                  {"add_bos_token", parts.adds_begin}};
  io::Json generation = io::Json::object();
  const auto put = [&](const char* name, std::optional<std::int64_t> id) {
    if (!id || *id < 0 || *id >= static_cast<std::int64_t>(parts.tokens.size())) return;
    config[fmt::format("{}_token", name)] = parts.tokens[static_cast<std::size_t>(*id)];
    if (std::string_view(name) != "unk") generation[fmt::format("{}_token_id", name)] = *id;
  };
  put("bos", parts.begin);
  put("eos", parts.end);
  put("unk", parts.unknown);
  if (gguf.field("tokenizer.ggml.padding_token_id")) put("pad", gguf.integer("tokenizer.ggml.padding_token_id"));
  if (const std::string chat = chat_template_text(gguf.path()); !chat.empty()) config["chat_template"] = chat;
  io::write_json(dir / "tokenizer_config.json", config);
  io::write_json(dir / "generation_config.json", generation);
}

/// One token a byte, as a byte-level vocabulary without merges.
BpeParts byte_parts() {
  BpeParts parts;
  for (int b = 0; b < 256; ++b) parts.tokens.emplace_back(char_of_byte(static_cast<unsigned char>(b)));
  parts.splitter = splitter_of_gguf("gpt-2", "bytes");
  return parts;
}

}  // namespace

std::string chat_template_text(const fs::path& dir) {
  if (dir.extension() == ".jinja") return io::read_file(dir);
  if (is_file(dir)) {
    const io::GgufFile gguf(dir);
    return gguf.field("tokenizer.chat_template") ? std::string(gguf.string("tokenizer.chat_template")) : std::string();
  }
  if (is_file(dir / "chat_template.jinja")) return io::read_file(dir / "chat_template.jinja");
  if (!is_file(dir / "tokenizer_config.json")) return {};
  const io::Json config = io::read_json(dir / "tokenizer_config.json");
  const auto it = config.find("chat_template");
  if (it == config.end()) return {};
  if (it->is_string()) return it->get<std::string>();
  for (const auto& named : *it)  // [{"name", "template"}, ...]
    if (named.is_object() && named.value("name", "") == "default") return named.value("template", "");
  return {};
}

void copy_tokenizer(const fs::path& source, const fs::path& dir, std::int64_t context) {
  if (is_file(source)) return write_files(io::GgufFile(source), dir, context);
  for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
                           "merges.txt", "chat_template.jinja", "generation_config.json"})
    if (is_file(source / name)) io::write_file(dir / name, io::read_file(source / name));
}

void put_tokenizer(const Tokenizer& tokenizer, const fs::path& dir, io::GgufMetadata& m) {
  const auto* bpe = dynamic_cast<const BpeTokenizer*>(&tokenizer);
  const std::string& source = dir.native();
  const BpeParts parts = bpe ? bpe->parts() : tokenizer.kind() == "byte" ? byte_parts() : BpeParts();
  if (parts.tokens.empty() || !parts.byte_level || parts.prefix != PrefixSpace::never)
    fail("tokenizer",
         fmt::format("{}: a tokenizer of the kind {} has no place in a GGUF file by this version, a byte-level one is wanted", source,
                     tokenizer.kind()),
         "write safetensors, with which its files are copied");
  const std::string_view pre = gguf_name(parts.splitter, source);
  enum : std::int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };
  std::vector<std::string> tokens = parts.tokens, merges;
  std::vector<std::int32_t> types(tokens.size(), kNormal);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i].empty()) tokens[i] = fmt::format("[PAD{}]", i), types[i] = kUnused;  // holes need a name of their own
  for (const AddedToken& t : parts.added) {
    if (t.lstrip || t.rstrip || t.single_word)
      fail("tokenizer",
           fmt::format("{}: the token `{}` takes what is beside it along or looks at it (lstrip, rstrip, single_word), which GGUF cannot say", source,
                       io::shown(t.content)));
    const auto i = static_cast<std::size_t>(t.id);
    for (std::size_t hole = tokens.size(); hole <= i; ++hole) tokens.push_back(fmt::format("[PAD{}]", hole)), types.push_back(kUnused);
    tokens[i] = t.content;
    types[i] = t.special ? kControl : kUserDefined;
  }
  for (const auto& p : parts.merges)
    merges.push_back(parts.tokens[static_cast<std::size_t>(p.left)] + ' ' + parts.tokens[static_cast<std::size_t>(p.right)]);
  m.put("tokenizer.ggml.model", "gpt2");
  m.put("tokenizer.ggml.pre", pre);
  m.put("tokenizer.ggml.tokens", tokens);
  m.put("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
  m.put("tokenizer.ggml.merges", merges);
  if (parts.begin) m.put("tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(*parts.begin));
  if (parts.end) m.put("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(*parts.end));
  if (parts.unknown) m.put("tokenizer.ggml.unknown_token_id", static_cast<std::uint32_t>(*parts.unknown));
  m.put("tokenizer.ggml.add_bos_token", parts.adds_begin);
  if (const std::string chat = chat_template_text(dir); !chat.empty()) m.put("tokenizer.chat_template", std::string_view(chat));
}

}  // namespace mezzo::text
