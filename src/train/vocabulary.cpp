// vocabulary.cpp - makes, saves and loads it.
#include "train/vocabulary.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "core/fail.h"
#include "text/bpe_train.h"
#include "text/tokenizer_files.h"
#include "train/checkpoint.h"

namespace mezzo::train {
namespace {

namespace fs = std::filesystem;
constexpr const char *kConfig = "tokenizer_config.json", *kTokenizer = "tokenizer.json";

bool says_bytes(const fs::path& config) {
  if (!present(config)) return false;
  const io::Json j = io::read_json(config);
  const auto ours = j.find("mezzo");
  return ours != j.end() && ours->is_object() && ours->value("kind", "") == "byte";
}

}  // namespace

std::int64_t vocab_of(const TrainOptions& o) { return o.vocab > 0 ? o.vocab : ByteTokenizer().vocab_size(); }

std::shared_ptr<const Tokenizer> make_tokenizer(const TrainOptions& o, const text::Documents& documents) {
  if (o.vocab == 0) return std::make_shared<ByteTokenizer>();
  std::vector<std::string_view> texts;
  for (const auto& part : documents.cut(o.val_fraction)) texts.push_back(part.train);
  return std::make_shared<text::BpeTokenizer>(text::train_bpe(texts, {.vocab = static_cast<std::int32_t>(o.vocab)}), "the vocabulary of this run");
}

void save_tokenizer(const Tokenizer& tokenizer, const fs::path& dir, std::int64_t context) {
  io::Json config{{"tokenizer_class", "MezzoTokenizer"}};
  if (context > 0) config["model_max_length"] = context;
  config["mezzo"] = {{"kind", tokenizer.kind()}};
  if (const auto* bpe = dynamic_cast<const text::BpeTokenizer*>(&tokenizer)) {
    io::write_file(dir / kTokenizer, text::to_tokenizer_json(bpe->parts()));
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    if (const auto end = bpe->end_of_text()) config["eos_token"] = bpe->bytes_of(*end);
  }
  io::write_json(dir / kConfig, config);
}

std::shared_ptr<const Tokenizer> saved_tokenizer(const fs::path& run) {
  if (!present(run / kConfig)) return std::make_shared<ByteTokenizer>();
  return model_tokenizer(run);
}

std::shared_ptr<const Tokenizer> model_tokenizer(const fs::path& dir) {
  if (says_bytes(dir / kConfig)) return std::make_shared<ByteTokenizer>();
  return load_tokenizer(dir);
}

}  // namespace mezzo::train
