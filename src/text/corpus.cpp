// corpus.cpp - finding, checking and splitting training text.
#include "text/corpus.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include "core/fail.h"
#include "text/utf8.h"

namespace mezzo::text {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t kMapFrom = 64 << 10;  // a process has 65,530 mappings, and a small file wastes half a page of each
constexpr std::string_view kWhat = "give a text file, or a directory of text files";

std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  int hidden = 0, links = 0, others = 0;
  try {
    for (fs::recursive_directory_iterator it(directory), end; it != end; ++it) {
      const fs::path& path = it->path();
      if (path.filename().native().starts_with('.')) {
        ++hidden;
        it.disable_recursion_pending();
      } else if (it->is_symlink()) {
        ++links;
      } else if (it->is_regular_file() && !(path.extension() == ".dat" && fs::is_regular_file(fs::path(path).replace_extension()))) {
        files.push_back(path);
      } else if (!it->is_directory()) {
        ++others;
      }
    }
  } catch (const fs::filesystem_error& e) { io::fail_file("data", e.path1().empty() ? directory : e.path1(), e.code().value()); }
  if (files.empty())
    fail("data",
         fmt::format("{}: no text file in this directory (passed over: {} hidden, {} symbolic links, {} others)", directory.native(), hidden, links,
                     others),
         kWhat);
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return files;
}

std::span<const std::uint8_t> as_ids(std::string_view text) { return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}; }

}  // namespace

// ---- TokenStream -----------------------------------------------------------------------------

void TokenStream::append(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return;
  pieces_.push_back({size_, bytes.data(), nullptr});
  size_ += static_cast<std::int64_t>(bytes.size());
}

void TokenStream::append(std::span<const std::int32_t> ids) {
  if (ids.empty()) return;
  pieces_.push_back({size_, nullptr, ids.data()});
  size_ += static_cast<std::int64_t>(ids.size());
}

void TokenStream::read(std::int64_t first, std::span<std::int32_t> out) const {
  MEZZO_CHECK(first >= 0 && static_cast<std::int64_t>(out.size()) <= size_ - first);
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), first, [](std::int64_t i, const Piece& p) { return i < p.first; });
  while (!out.empty()) {
    const std::int64_t end = piece == pieces_.end() ? size_ : piece->first;  // of the piece before
    const Piece& p = piece[-1];
    const std::size_t n = std::min(out.size(), static_cast<std::size_t>(end - first));
    if (p.bytes) std::copy_n(p.bytes + (first - p.first), n, out.data());
    else std::copy_n(p.ids + (first - p.first), n, out.data());
    out = out.subspan(n);
    first += static_cast<std::int64_t>(n);
    if (piece != pieces_.end()) ++piece;
  }
}

// ---- Documents -------------------------------------------------------------------------------

Documents::Documents(const fs::path& path) : path_(path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    if (status.type() != fs::file_type::not_found) io::fail_file("data", path, error.value());
    fail("data", fmt::format("{}: no such file or directory", path.native()), kWhat);
  }
  io::Checksum64 checksum;
  if (fs::is_directory(status)) {
    for (const fs::path& file : files_below(path)) load(file, checksum);
  } else {
    load(path, checksum);
  }
  fingerprint_ = checksum.value();
  if (bytes_ == 0) fail("data", fmt::format("{}: empty, text was expected", path.native()), kWhat);
}

void Documents::load(const fs::path& path, io::Checksum64& checksum) {
  std::error_code error;
  const bool map = fs::is_regular_file(path, error) ? fs::file_size(path, error) >= kMapFrom : true;  // what is no file, mapping refuses
  File file;
  if (map) file.map = io::MappedFile(path, io::Access::sequential);
  else file.small = io::read_file(path);
  const std::string_view text = file.text();
  if (const auto bad = find_invalid_utf8(text))
    fail("data", fmt::format("{}: byte {} (0x{:02x}) is not UTF-8", path.native(), *bad, static_cast<unsigned char>(text[*bad])),
         "convert the text, e.g. with iconv, or remove the file");
  const std::uint64_t size = text.size();
  checksum.update(std::as_bytes(std::span(&size, 1)));
  checksum.update(io::as_bytes(text));
  bytes_ += static_cast<std::int64_t>(size);
  file.map.advise(io::Access::normal);
  if (size > 0) files_.push_back(std::move(file));
}

std::vector<Documents::Parts> Documents::cut(double fraction) const {
  std::vector<Parts> parts;
  for (const File& file : files_) {
    const std::string_view text = file.text();
    const auto tail = static_cast<std::size_t>(std::ceil(static_cast<double>(text.size()) * fraction));
    std::size_t at = text.size() - std::min(tail, text.size());
    while (at > 0 && at < text.size() && (text[at] & 0xC0) == 0x80) --at;
    parts.push_back({text.substr(0, at), text.substr(at)});
  }
  return parts;
}

// ---- Corpus ----------------------------------------------------------------------------------

Corpus::Corpus(Documents documents, const Tokenizer& tokenizer, const CorpusOptions& options) : documents_(std::move(documents)) {
  if (options.seq < 1) fail("data", fmt::format("sequences of {} tokens, at least 1 was expected", options.seq));
  if (!(options.val_fraction >= 0 && options.val_fraction < 1))
    fail("data", fmt::format("a validation fraction of {}, one in [0, 1) was expected", options.val_fraction));
  const std::int64_t wanted = options.seq + 1;
  double fraction = options.val_fraction;
  const auto cut = [&] { split(tokenizer, fraction, options.end_of_text); };
  for (cut(); fraction > 0 && fraction < 0.5 && validation_.size() < wanted; cut()) fraction = std::min(0.5, 2 * fraction);
  if (train_.size() < wanted || (fraction > 0 && validation_.size() < wanted))
    fail("data",
         fmt::format("{}: too short: {}, at least {} were expected {}(sequences of {} tokens, and the next)", documents_.path().native(),
                     fraction > 0 ? fmt::format("{} tokens for training and {} for validation", train_.size(), validation_.size())
                                  : fmt::format("{} tokens", train_.size()),
                     wanted, fraction > 0 ? "of each " : "", options.seq),
         "give more text or take shorter sequences");
}

void Corpus::split(const Tokenizer& tokenizer, double fraction, bool end_of_text) {
  train_ = validation_ = {};
  ids_.clear();
  const bool bytes_are_ids = dynamic_cast<const ByteTokenizer*>(&tokenizer) != nullptr;
  const auto append = [&](TokenStream& stream, std::string_view part) {
    if (part.empty()) return;
    if (bytes_are_ids) return stream.append(as_ids(part));
    ids_.push_back(tokenizer.encode(part));
    if (const auto end = tokenizer.end_of_text(); end && end_of_text) ids_.back().push_back(*end);
    stream.append(std::span<const std::int32_t>(ids_.back()));
  };
  for (const auto& [train, validation] : documents_.cut(fraction)) {
    append(train_, train);
    append(validation_, validation);
  }
}

}  // namespace mezzo::text
