// corpus.h - training text: which files, checked and mapped, split into training and validation, as streams of tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/text.h>

#include "io/file.h"

namespace mezzo::text {

/// A read-only sequence of token ids over pieces that lie elsewhere: bytes that are their own ids, or ids.
class TokenStream {
 public:
  std::int64_t size() const noexcept { return size_; }
  /// Copies tokens [first, first + out.size()), which must lie inside.
  void read(std::int64_t first, std::span<std::int32_t> out) const;
  void append(std::span<const std::uint8_t> bytes);
  void append(std::span<const std::int32_t> ids);

 private:
  struct Piece {
    std::int64_t first;  // index of its first token in the stream
    const std::uint8_t* bytes;
    const std::int32_t* ids;
  };
  std::vector<Piece> pieces_;
  std::int64_t size_ = 0;
};

/// The text of a file, or of a directory and those below it. In a directory are taken, sorted by path (bytewise): regular files, but not
///   - names that begin with a dot, files or directories;
///   - symbolic links (they would bring a file twice: fortunes has one beside each text);
///   - NAME.dat beside a file NAME (the index that strfile(1) makes for fortune(6)).
/// All text must be UTF-8; an Error names file and offset where it is not. Files of 64 KiB and more are mapped, smaller ones read.
class Documents {
 public:
  explicit Documents(const std::filesystem::path&);
  const std::filesystem::path& path() const noexcept { return path_; }
  /// Files that have text, and their bytes.
  std::int64_t files() const noexcept { return static_cast<std::int64_t>(files_.size()); }
  std::int64_t bytes() const noexcept { return bytes_; }
  /// Of all lengths and bytes, in order: the same text gives the same number.
  std::uint64_t fingerprint() const noexcept { return fingerprint_; }
  /// Each document cut in two: the last `fraction` of its bytes (rounded up, then back to the begin of a code point) is the second part.
  struct Parts {
    std::string_view train, validation;
  };
  std::vector<Parts> cut(double fraction) const;

 private:
  struct File {
    io::MappedFile map;
    std::string small;
    std::string_view text() const noexcept { return map.bytes().empty() ? small : map.text(); }
  };
  void load(const std::filesystem::path&, io::Checksum64&);

  std::filesystem::path path_;
  std::vector<File> files_;
  std::int64_t bytes_ = 0;
  std::uint64_t fingerprint_ = 0;
};

struct CorpusOptions {
  std::int64_t seq = 256;     ///< tokens T of a sequence: each part must hold one, and its next token
  double val_fraction = 0.1;  ///< of every file, in [0, 1); 0: all text is for training, there is no validation part
  bool end_of_text = true;    ///< the tokenizer's end_of_text() follows each document, where it has one
};

/// Documents as tokens. Of each file the last val_fraction is for validation, the rest for training, so that both come from every file and none
/// of the bytes is in both. The heads joined in order are the training stream, the tails the validation stream. A fraction too small for one
/// sequence of T + 1 tokens is doubled, up to one half, until it suffices.
class Corpus {
 public:
  Corpus(const std::filesystem::path& path, const Tokenizer& tokenizer, const CorpusOptions& options = {})
      : Corpus(Documents(path), tokenizer, options) {}
  Corpus(Documents, const Tokenizer&, const CorpusOptions& = {});
  const TokenStream& train() const& noexcept { return train_; }
  const TokenStream& validation() const& noexcept { return validation_; }
  std::int64_t files() const noexcept { return documents_.files(); }
  std::int64_t bytes() const noexcept { return documents_.bytes(); }
  std::uint64_t fingerprint() const noexcept { return documents_.fingerprint(); }

 private:
  void split(const Tokenizer&, double fraction, bool end_of_text);

  Documents documents_;
  std::vector<std::vector<std::int32_t>> ids_;  // what the streams point to where tokens are not bytes
  TokenStream train_, validation_;
};

}  // namespace mezzo::text
