// updates.cpp - copies samples of what a step is about to change, and compares them afterwards.
#include "inspect/updates.h"

#include <cstring>

#include "tensor/impl.h"

namespace mezzo::inspect {
namespace {

/// Bytes of each of n elements: a remainder is stored as two bytes an element.
std::size_t element_bytes(const Tensor& t, std::int64_t n) { return static_cast<std::size_t>(t.numel() / n) * size_of(t.dtype()); }

std::vector<std::byte> bytes_of(const Tensor& t, std::int64_t n, const Sample& s) {
  const std::size_t width = element_bytes(t, n), piece = static_cast<std::size_t>(s.length) * width;
  std::vector<std::byte> out(static_cast<std::size_t>(s.pieces) * piece);
  for (std::int64_t p = 0; p < s.pieces; ++p)
    std::memcpy(out.data() + static_cast<std::size_t>(p) * piece,
                static_cast<const std::byte*>(data(t)) + static_cast<std::size_t>(s.begin(p)) * width, piece);
  return out;
}

}  // namespace

void Updates::before(const optim::Optimizer& optimizer) {
  parameters_.clear();
  const auto state = optimizer.state_view();
  const auto parameters = optimizer.named_parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, w] = parameters[i];
    const Tensor gradient = w.grad();
    if (!gradient.defined() || w.numel() == 0 || !w.is_contiguous()) continue;
    const Sample sample(w.numel(), sample_);
    Parameter p{.name = name, .dtype = w.dtype(), .sample = sample, .moves = {}, .parts = {{w, bytes_of(w, w.numel(), sample)}}};
    for (const float g : sampled(readable(gradient), sample)) p.moves.push_back(g != 0);
    for (const char* beside : {"master.", "remainder.", "compensation."})
      for (const auto& [key, kept] : state.tensors)
        if (key == beside + std::to_string(i)) p.parts.push_back({kept, bytes_of(kept, w.numel(), sample)});
    parameters_.push_back(std::move(p));
  }
}

std::vector<Record> Updates::after() {
  std::vector<Record> records;
  for (const auto& p : parameters_) {
    const auto n = p.parts[0].live.numel();
    std::vector<bool> changed(p.moves.size(), false);
    for (const auto& part : p.parts) {
      const auto now = bytes_of(part.live, n, p.sample);
      const std::size_t width = element_bytes(part.live, n);
      for (std::size_t i = 0; i < changed.size(); ++i)
        if (!changed[i]) changed[i] = std::memcmp(now.data() + i * width, part.was.data() + i * width, width) != 0;
    }
    std::int64_t moves = 0, stalled = 0;
    for (std::size_t i = 0; i < changed.size(); ++i) moves += p.moves[i], stalled += p.moves[i] && !changed[i];
    Record r{.kind = Kind::update, .module = p.name, .dtype = p.dtype};
    r.stalled = moves > 0 ? static_cast<double>(stalled) / static_cast<double>(moves) : 0.0;
    records.push_back(std::move(r));
  }
  parameters_.clear();
  return records;
}

}  // namespace mezzo::inspect
