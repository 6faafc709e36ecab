// gguf_write.cpp - writing of GGUF files.
#include <algorithm>
#include <vector>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/gguf.h"
#include "io/own_checksum.h"
#include "io/shown.h"

namespace mezzo::io {
namespace {

constexpr std::uint64_t kAlignment = 32;
constexpr std::uint32_t kQuantizationVersion = 2;
constexpr std::size_t kMaxName = 63;  // what llama.cpp takes

template <class T> void append(std::string& out, T value) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }
std::uint64_t aligned(std::uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

WrittenFile write_gguf(const std::filesystem::path& path, const GgufMetadata& given, std::span<const GgufTensor> tensors,
                       FunctionRef<void(const GgufTensor&, TensorSink)> produce) {
  GgufMetadata metadata = given;
  MEZZO_CHECK(!metadata.has("general.alignment"));
  const bool blocks = std::any_of(tensors.begin(), tensors.end(), [](const GgufTensor& t) { return t.encoding.blocks.has_value(); });
  if (blocks && !metadata.has("general.quantization_version")) metadata.put("general.quantization_version", kQuantizationVersion);

  const bool sealed = metadata.has(kChecksumKey);
  if (sealed) metadata.put(kChecksumKey, kNoChecksum);  // it may have come from another file

  std::string header = "GGUF";
  append(header, std::uint32_t{3});
  append(header, static_cast<std::uint64_t>(tensors.size()));
  append(header, static_cast<std::uint64_t>(metadata.size()));
  header += metadata.encoded();
  std::vector<std::int64_t> bytes;
  std::vector<std::string_view> names;
  std::uint64_t offset = 0;
  for (const GgufTensor& t : tensors) {
    const std::string what = fmt::format("{}: tensor `{}`", path.native(), shown(t.name));
    if (t.name.empty() || t.name.size() > kMaxName)
      fail("gguf", fmt::format("{}: a name of {} bytes, 1 to {} were expected", what, t.name.size(), kMaxName));
    if (t.shape.empty() || t.shape.size() > 4) fail("gguf", fmt::format("{}: {} dimensions, 1 to 4 were expected", what, t.shape.size()));
    names.push_back(t.name);
    bytes.push_back(byte_count(t.encoding, t.shape, what));
    append(header, static_cast<std::uint64_t>(t.name.size()));
    header += t.name;
    append(header, static_cast<std::uint32_t>(t.shape.size()));
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d) append(header, *d);
    append(header, gguf_type_id(t.encoding));
    append(header, offset);
    offset = aligned(offset + static_cast<std::uint64_t>(bytes.back()));
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail("gguf", fmt::format("{}: two tensors named `{}`", path.native(), shown(*twice)));
  header.resize(aligned(header.size()), '\0');

  AtomicFile file(path, header.size() + offset);
  file.write(header);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    std::int64_t left = bytes[i];
    const auto sink = [&](std::span<const std::byte> piece) {
      left -= static_cast<std::int64_t>(piece.size());
      MEZZO_CHECK(left >= 0);
      file.write(piece);
    };
    produce(tensors[i], sink);
    MEZZO_CHECK(left == 0);
    file.write(std::string(aligned(file.size()) - file.size(), '\0'));
  }
  if (sealed) {
    GgufMetadata entry;
    entry.put(kChecksumKey, kNoChecksum);
    const std::string encoded = entry.encoded();
    seal(file, header.find(encoded) + encoded.size() - kNoChecksum.size());
  }
  file.commit();
  return {file.size(), file.checksum()};
}

WrittenFile write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata, std::span<const GgufTensor> tensors) {
  return write_gguf(path, metadata, tensors, [](const GgufTensor& t, TensorSink sink) { sink(t.data); });
}

}  // namespace mezzo::io
