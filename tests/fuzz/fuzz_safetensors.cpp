// fuzz_safetensors.cpp - whatever the bytes are: an Error, or an index whose entries tile the data.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include <mezzo/error.h>

#include "io/safetensors.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void parse(std::span<const std::byte> file) {
  mezzo::io::TensorIndex index;
  try {
    index = mezzo::io::parse_safetensors(file, "input");
  } catch (const mezzo::Error&) { return; }
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  const std::byte* at = file.data() + sizeof header + header;
  for (const auto& e : index.entries) {
    require(e.data.data() == at);
    require(static_cast<std::int64_t>(e.data.size()) == mezzo::io::byte_count(e.dtype, e.shape, e.name));
    at += e.data.size();
  }
  require(at == file.data() + file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  parse(input);
  if (size < sizeof(std::uint64_t)) return 0;
  // Once more with a length that fits, which mutation hardly ever hits: the header ends at the last brace.
  std::string file(mezzo::io::as_text(input));
  const auto brace = file.rfind('}');
  const std::uint64_t header = brace == file.npos || brace < sizeof header ? 0 : brace + 1 - sizeof header;
  std::memcpy(file.data(), &header, sizeof header);
  parse(mezzo::io::as_bytes(file));
  return 0;
}
