// fuzz_gguf.cpp - whatever the bytes are: an Error, or an index that lies inside the file, tensors apart from each other.
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include <mezzo/error.h>

#include "io/gguf.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool inside(std::span<const std::byte> part, std::span<const std::byte> file) {
  return part.empty() || (part.data() >= file.data() && part.data() + part.size() <= file.data() + file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  mezzo::io::GgufIndex index;
  try {
    index = mezzo::io::parse_gguf(file, "input");
  } catch (const mezzo::Error&) { return 0; }
  for (const auto& f : index.fields) {
    require(inside(f.value.bytes(), file));
    (void)f.value.integer();
    (void)f.value.number();
    (void)f.value.boolean();
    if (const auto s = f.value.string()) require(inside(mezzo::io::as_bytes(*s), file));
    if (const auto all = f.value.strings())
      for (const auto s : *all) require(inside(mezzo::io::as_bytes(s), file));
    if (const auto all = f.value.integers()) require(all->size() == f.value.count());
    if (const auto all = f.value.floats()) require(all->size() == f.value.count());
  }
  std::vector<std::span<const std::byte>> parts;
  for (const auto& t : index.tensors) {
    require(inside(t.data, file));
    require(static_cast<std::int64_t>(t.data.size()) == mezzo::io::byte_count(t.encoding, t.shape, "tensor"));
    if (!t.data.empty()) parts.push_back(t.data);
  }
  std::sort(parts.begin(), parts.end(), [](auto a, auto b) { return a.data() < b.data(); });
  for (std::size_t i = 1; i < parts.size(); ++i) require(parts[i - 1].data() + parts[i - 1].size() <= parts[i].data());
  return 0;
}
