// safetensors.h - the safetensors format: reading by mapping, writing in one pass. Knows bytes and dtypes, no Tensor.
//
// Layout (huggingface.co/docs/safetensors): u64 little-endian length N of the header, N bytes of JSON padded with spaces, then the
// data of all tensors, row-major, little-endian, one after the other without holes. The JSON maps each name to
// {"dtype", "shape", "data_offsets": [begin, end]}, offsets counted from the end of the header; "__metadata__" maps strings to strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <mezzo/dtype.h>

#include "core/parallel.h"
#include "io/file.h"

namespace mezzo::io {

struct TensorEntry {
  std::string name;
  Dtype dtype = f32;
  std::vector<std::int64_t> shape;  ///< {} is one element, as in mezzo
  std::span<const std::byte> data;  ///< numel * size_of(dtype) bytes; in a file of others not always aligned to the element
};
using Metadata = std::map<std::string, std::string>;

/// numel * size_of(dtype). Error, naming `what`, if a dimension is negative or the number of bytes does not fit std::int64_t.
std::int64_t byte_count(Dtype, std::span<const std::int64_t> shape, std::string_view what);

struct TensorIndex {
  std::vector<TensorEntry> entries;  ///< in the order of their data
  Metadata metadata;
};
/// Checks and indexes a file's bytes, which the entries go on pointing into. `path` is for the errors, which say where in the file.
/// Whatever the bytes are, it takes no more memory than a small multiple of the header, and every entry it returns is in bounds.
TensorIndex parse_safetensors(std::span<const std::byte> file, std::string_view path);

/// A mapped file and its index. Error if it carries a checksum of itself (own_checksum.h), and another than its own.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::filesystem::path);
  const std::vector<TensorEntry>& entries() const& noexcept { return index_.entries; }
  const Metadata& metadata() const& noexcept { return index_.metadata; }
  /// By name; null if there is none.
  const TensorEntry* find(std::string_view name) const& noexcept;
  const std::filesystem::path& path() const noexcept { return path_; }
  std::span<const std::byte> bytes() const& noexcept { return file_.bytes(); }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  TensorIndex index_;
  std::vector<const TensorEntry*> by_name_;
};

struct WrittenFile {
  std::uint64_t bytes = 0, checksum = 0;  ///< of the whole file (Checksum64)
};

/// Writes a file atomically (AtomicFile). The bytes depend on the entries and not on their order: tensors stand by falling element size,
/// then by name, each aligned to its element; the data begins at a multiple of 64 bytes. With an entry
/// kChecksumKey, kNoChecksum in the metadata it carries a checksum of itself, and WrittenFile has that one.
WrittenFile write_safetensors(const std::filesystem::path&, std::span<const TensorEntry>, const Metadata& = {});

/// The same for tensors that need not be in memory together: `produce` is called for each in file order, and writes its data (whose span is
/// not looked at) in pieces of its choice.
using TensorSink = FunctionRef<void(std::span<const std::byte>)>;
WrittenFile write_safetensors(const std::filesystem::path&, std::span<const TensorEntry>, const Metadata&,
                              FunctionRef<void(const TensorEntry&, TensorSink)> produce);

}  // namespace mezzo::io
