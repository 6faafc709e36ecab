// sentencepiece.cpp - SentencePiece models by Google's library (Kudo, Richardson, arXiv 1808.06226).
#include <sentencepiece_processor.h>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/file.h"
#include "text/added_tokens.h"
#include "text/bpe_tokenizer.h"
#include "text/tokenizer_files.h"

namespace mezzo::text {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::filesystem::path& path) : source_(path.native()) {
    const std::string model = io::read_file(path);
    if (const auto status = processor_.LoadFromSerializedProto(model); !status.ok())
      fail("tokenizer", fmt::format("{}: no SentencePiece model: {}", source_, status.ToString()));
    std::vector<AddedToken> controls;
    const int n = processor_.GetPieceSize();
    for (int id = 0; id < n; ++id) {
      std::string bytes;
      const std::string& piece = processor_.IdToPiece(id);
      if (processor_.IsByte(id)) bytes = std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
      else if (processor_.IsControl(id) || processor_.IsUnknown(id)) bytes = piece;
      else bytes = Replace(piece);
      if ((processor_.IsControl(id) || processor_.IsUnknown(id)) && !piece.empty()) controls.push_back({.content = piece, .id = id});
      bytes_.push_back(std::move(bytes));
    }
    controls_ = AddedTokens(std::move(controls), source_);
    std::vector<std::string> pieces;
    prefix_ = processor_.Encode("a", &pieces).ok() && !pieces.empty() && pieces[0].starts_with(kSpaceMark);
  }

  std::string_view kind() const override { return "sentencepiece"; }
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(bytes_.size()); }
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const override {
    return encode_spans(text, options).ids;
  }
  Spans encode_spans(std::string_view text, const EncodeOptions& options = {}) const override {
    Spans out;
    if (!options.special) {
      add(text, 0, out);
      return out;
    }
    for (const auto& [piece, token] : controls_.split(text)) {
      const auto at = static_cast<std::int64_t>(piece.data() - text.data());
      if (!token) {
        add(piece, at, out);
        continue;
      }
      out.ids.push_back(token->id);
      out.ends.push_back(at + static_cast<std::int64_t>(piece.size()));
    }
    return out;
  }
  std::string_view bytes_of(std::int32_t id) const override {
    if (id < 0 || id >= vocab_size()) fail("decode", fmt::format("token {}, 0 to {} were expected from {}", id, vocab_size() - 1, source_));
    return bytes_[static_cast<std::size_t>(id)];
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string out = Tokenizer::decode(ids);
    if (prefix_ && out.starts_with(' ')) out.erase(0, 1);
    return out;
  }
  bool is_special(std::int32_t id) const override { return id >= 0 && id < vocab_size() && (processor_.IsControl(id) || processor_.IsUnknown(id)); }
  std::optional<std::int32_t> find(std::string_view token) const override {
    const int id = processor_.PieceToId(token);
    return id >= 0 && id < vocab_size() && processor_.IdToPiece(id) == token ? std::optional(id) : std::nullopt;
  }
  std::optional<std::int32_t> begin_of_text() const override { return known(processor_.bos_id()); }
  bool adds_begin_of_text() const override { return begin_of_text().has_value(); }
  std::optional<std::int32_t> end_of_text() const override { return known(processor_.eos_id()); }

 private:
  static std::string Replace(std::string_view piece) {
    std::string out;
    for (std::size_t at; (at = piece.find(kSpaceMark)) != piece.npos; piece.remove_prefix(at + kSpaceMark.size()))
      (out += piece.substr(0, at)) += ' ';
    return out += piece;
  }
  static std::optional<std::int32_t> known(int id) { return id >= 0 ? std::optional(id) : std::nullopt; }

  void add(std::string_view text, std::int64_t offset, Spans& out) const {
    sentencepiece::ImmutableSentencePieceText pieces;
    if (const auto status = processor_.Encode(text, pieces.mutable_proto()); !status.ok())
      fail("tokenizer", fmt::format("{}: {}", source_, status.ToString()));
    for (std::size_t i = 0; i < pieces.pieces_size(); ++i) {
      const auto piece = pieces.pieces(static_cast<int>(i));
      out.ids.push_back(static_cast<std::int32_t>(piece.id()));
      out.ends.push_back(offset + static_cast<std::int64_t>(piece.end()));
    }
  }

  std::string source_;
  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::string> bytes_;  // by id
  AddedTokens controls_;
  bool prefix_ = false;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_sentencepiece(const std::filesystem::path& path) { return std::make_shared<SentencePieceTokenizer>(path); }

}  // namespace mezzo::text
