// gguf.h - the GGUF format, versions 2 and 3: reading by mapping, writing in one pass. Knows bytes, dtypes and block formats, no Tensor.
//
// Layout (github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: "GGUF", u32 version, u64 number of tensors, u64 number of
// key-value pairs, the pairs, the tensors' directory, padding, data. A string is a u64 length and its bytes; an array a u32 type, a u64 count
// and its elements. Dimensions stand innermost first; offsets count from the first multiple of `general.alignment` after the directory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/encoding.h"
#include "io/safetensors.h"

namespace mezzo::io {

enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
std::string_view name(GgufType);

/// One value of the metadata, in the file's bytes. What is asked of it and is not there is an Error that names the key.
class GgufValue {
 public:
  GgufValue() = default;
  /// `bytes`: exactly the value's, checked. An array's: its elements alone, of type `element`.
  GgufValue(GgufType type, std::span<const std::byte> bytes, GgufType element = {}, std::uint64_t count = 0)
      : type_(type), element_(element), count_(count), bytes_(bytes) {}

  GgufType type() const noexcept { return type_; }
  bool is_number() const noexcept { return type_ != GgufType::string && type_ != GgufType::array && type_ != GgufType::boolean; }
  /// "u32", "array of 49152 string", ...: for messages.
  std::string type_name() const;

  // Each empty if the value is of another type (or, integer: does not fit).
  std::optional<std::int64_t> integer() const;
  std::optional<double> number() const;  ///< integers too
  std::optional<bool> boolean() const;
  std::optional<std::string_view> string() const;
  std::optional<std::vector<std::string_view>> strings() const;  ///< an array of strings
  std::optional<std::vector<std::int64_t>> integers() const;     ///< an array of any integers that fit
  std::optional<std::vector<float>> floats() const;              ///< an array of f32

  std::span<const std::byte> bytes() const noexcept { return bytes_; }
  GgufType element() const noexcept { return element_; }
  std::uint64_t count() const noexcept { return count_; }

 private:
  GgufType type_ = GgufType::u8, element_ = GgufType::u8;
  std::uint64_t count_ = 0;
  std::span<const std::byte> bytes_;
};

struct GgufField {
  std::string_view key;
  GgufValue value;
};

struct GgufTensor {
  std::string_view name;
  Encoding encoding;
  std::vector<std::int64_t> shape;  ///< outermost first, as mezzo's
  std::span<const std::byte> data;
};

struct GgufIndex {
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  std::vector<GgufField> fields;
  std::vector<GgufTensor> tensors;
};
/// Checks and indexes a file's bytes, which the index goes on pointing into. `path` is for the errors, which say where in the file. Whatever
/// the bytes are, it takes no more memory than a small multiple of their number, and everything in the index is in bounds.
GgufIndex parse_gguf(std::span<const std::byte> file, std::string_view path);

/// A mapped file and its index. Error if it carries a checksum of itself (own_checksum.h), and another than its own.
class GgufFile {
 public:
  explicit GgufFile(std::filesystem::path);
  const std::vector<GgufField>& fields() const& noexcept { return index_.fields; }
  const std::vector<GgufTensor>& tensors() const& noexcept { return index_.tensors; }
  std::uint32_t version() const noexcept { return index_.version; }
  /// By key or name; null if there is none.
  const GgufValue* field(std::string_view key) const& noexcept;
  const GgufTensor* tensor(std::string_view name) const& noexcept;
  /// Error that names path and key if the field is missing or of another type.
  std::int64_t integer(std::string_view key) const;
  std::string_view string(std::string_view key) const;
  std::int64_t integer_or(std::string_view key, std::int64_t otherwise) const { return field(key) ? integer(key) : otherwise; }
  double number_or(std::string_view key, double otherwise) const;
  bool boolean_or(std::string_view key, bool otherwise) const;
  /// Error that says what the field holds instead of `wanted`, or that it is missing.
  [[noreturn]] void fail_field(std::string_view key, std::string_view wanted) const;

  const std::filesystem::path& path() const noexcept { return path_; }
  std::span<const std::byte> bytes() const& noexcept { return file_.bytes(); }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  GgufIndex index_;
  std::vector<const GgufTensor*> by_name_;
};

// ---- writing ---------------------------------------------------------------------------------

/// Key-value pairs in the file's encoding, in the order they are put in. A key given again replaces the value and keeps its place.
class GgufMetadata {
 public:
  void put(std::string_view key, std::uint32_t);
  void put(std::string_view key, float);
  void put(std::string_view key, bool);
  void put(std::string_view key, std::string_view);
  void put(std::string_view key, const char* text) { put(key, std::string_view(text)); }
  void put(std::string_view key, std::span<const std::string> values);
  void put(std::string_view key, std::span<const float> values);
  void put(std::string_view key, std::span<const std::int32_t> values);
  /// As it stands in another file.
  void put(const GgufField&);
  bool has(std::string_view key) const noexcept;

  std::size_t size() const noexcept { return pairs_.size(); }
  std::string encoded() const;

 private:
  std::string& value_of(std::string_view key);  // emptied
  struct Pair {
    std::string key, value;  // value: type and payload
  };
  std::vector<Pair> pairs_;
};

/// ggml's number for an encoding, as the directory has it. Error if it has none.
std::uint32_t gguf_type_id(const Encoding&);

/// Writes a version 3 file atomically (AtomicFile); tensors in the order given, each at a multiple of 32. A tensor's data is checked against its
/// shape. Adds `general.alignment` never, `general.quantization_version` where blocks are written and it is not there. With
/// a field kChecksumKey, kNoChecksum it carries a checksum of itself, and WrittenFile has that one.
WrittenFile write_gguf(const std::filesystem::path&, const GgufMetadata&, std::span<const GgufTensor>);

/// The same for tensors that need not be in memory together: `produce` is called for each in order, and writes its data (whose span is not
/// looked at) in pieces of its choice.
WrittenFile write_gguf(const std::filesystem::path&, const GgufMetadata&, std::span<const GgufTensor>,
                       FunctionRef<void(const GgufTensor&, TensorSink)> produce);

}  // namespace mezzo::io
