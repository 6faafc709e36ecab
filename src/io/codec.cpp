// codec.cpp - elements and blocks of tensors in files to numbers and back.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/encoding.h"

namespace mezzo::io {
namespace {

constexpr std::int64_t kPiece = 1 << 16;  // elements; a whole number of any blocks

}  // namespace

void decode(const Encoding& e, const std::byte* data, Dtype to, void* y, std::int64_t n) {
  if (n == 0) return;
  if (e.blocks) return kernels::dequantize(kernels::cpu_queue(), *e.blocks, to, data, y, 1, n);
  MEZZO_CHECK(is_floating(e.dtype));
  const std::size_t bytes = size_of(e.dtype);
  if (reinterpret_cast<std::uintptr_t>(data) % bytes == 0) return kernels::convert(kernels::cpu_queue(), e.dtype, to, data, y, n);
  // A file of others need not align its elements.
  const Block aligned = kernels::cpu_queue().scratch(static_cast<std::size_t>(std::min(n, kPiece)) * bytes);
  for (std::int64_t i = 0; i < n; i += kPiece) {
    const std::int64_t count = std::min(kPiece, n - i);
    std::memcpy(aligned.as<std::byte>(), data + i * static_cast<std::int64_t>(bytes), static_cast<std::size_t>(count) * bytes);
    kernels::convert(kernels::cpu_queue(), e.dtype, to, aligned.as<std::byte>(),
                     static_cast<std::byte*>(y) + i * static_cast<std::int64_t>(size_of(to)), count);
  }
}

bool can_encode(const Encoding& e) {
  return e.blocks ? kernels::can_quantize(*e.blocks) && kernels::in_gguf(*e.blocks) : e.dtype == f32 || is_16bit(e.dtype);
}

void encode(const Encoding& e, const float* x, std::int64_t n, std::string_view what, FunctionRef<void(std::span<const std::byte>)> sink) {
  MEZZO_CHECK(can_encode(e));
  const auto limit = static_cast<float>(e.blocks ? kernels::largest(*e.blocks) : format_info(e.dtype).max);
  const std::int64_t piece_bytes = byte_count(e, kPiece, what);
  const Block piece = kernels::cpu_queue().scratch(static_cast<std::size_t>(piece_bytes));
  for (std::int64_t i = 0; i < n; i += kPiece) {
    const std::int64_t count = std::min(kPiece, n - i);
    for (std::int64_t k = i; k < i + count; ++k)
      if (!(std::abs(x[k]) <= limit))
        fail("encode", fmt::format("{}: element {} is {}, a number of at most {} was expected in {}", what, k, x[k], limit, name(e)),
             "write this file in BF16 or F32");
    auto* bytes = piece.as<std::byte>();
    if (e.blocks) kernels::quantize(kernels::cpu_queue(), *e.blocks, x + i, bytes, count);
    else kernels::convert(kernels::cpu_queue(), f32, e.dtype, x + i, bytes, count);
    sink({bytes, static_cast<std::size_t>(byte_count(e, count, what))});
  }
}

}  // namespace mezzo::io
