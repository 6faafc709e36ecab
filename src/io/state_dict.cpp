// state_dict.cpp - tensors to and from safetensors files.
#include <mezzo/io.h>

#include <cstring>

#include "core/fail.h"
#include "io/own_checksum.h"
#include "io/safetensors.h"
#include "tensor/layout.h"

namespace mezzo {

void save(const StateDict& tensors, const std::filesystem::path& path) {
  std::vector<Tensor> kept;  // contiguous copies of views, while they are written
  std::vector<io::TensorEntry> entries;
  for (const auto& [name, t] : tensors) {
    require_defined("save", t, name.c_str());
    Tensor c = t;
    if (!t.is_contiguous()) {
      c = make_tensor(t.shape(), t.dtype());
      copy_elements(c, t);
    }
    kept.push_back(c);
    entries.push_back({name,
                       t.dtype(),
                       {t.shape().begin(), t.shape().end()},
                       {static_cast<const std::byte*>(data(c)), static_cast<std::size_t>(t.numel()) * size_of(t.dtype())}});
  }
  io::write_safetensors(path, entries, {{"format", "pt"}, {std::string(io::kChecksumKey), std::string(io::kNoChecksum)}});
}

StateDict load(const std::filesystem::path& path) {
  const io::SafetensorsFile file(path);
  StateDict out;
  for (const auto& e : file.entries()) {
    Tensor t = make_tensor(Shape(e.shape), e.dtype);
    if (!e.data.empty()) std::memcpy(mutable_data(t), e.data.data(), e.data.size());
    out.emplace_back(e.name, std::move(t));
  }
  return out;
}

}  // namespace mezzo
