// blocks.h - weights in blocks of small integers with a scale, as GGUF files hold them: facts of each format, unpacking and packing.
//
// The formats are ggml's, by its names (github.com/ggml-org/ggml, docs/gguf.md and ggml-common.h describe them): 32 elements with an f16 scale
// (and, in the _1 formats, an f16 minimum), or, in the _K formats, 256 elements whose sub-blocks have 6- or 8-bit scales of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/kernels.h"

namespace mezzo::kernels {

enum class Format : std::uint8_t { q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, count };

struct FormatFacts {
  std::string_view name;  ///< as GGUF tools print it
  int elements, bytes;    ///< of a block
  double bits() const { return 8.0 * bytes / elements; }
};
constexpr FormatFacts facts(Format format) {
  constexpr FormatFacts kFacts[] = {{"Q8_0", 32, 34}, {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},
                                    {"Q5_1", 32, 24}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210}};
  return kFacts[static_cast<std::size_t>(format)];
}

/// y (rows, columns; f32, f16 or bf16) = the elements of blocks. A row is columns / facts.elements blocks; columns are whole blocks. Rows begin
/// row_bytes apart in `blocks` (0: one after the other) and ld elements apart in y (0: columns), so a tile of a matrix is such a call too.
/// Arithmetic in f32, where every product is exact; one rounding on store.
void dequantize(Queue&, Format, Dtype to, const void* blocks, void* y, std::int64_t rows, std::int64_t columns, std::int64_t row_bytes = 0,
                std::int64_t ld = 0);

/// y (n, whole blocks) of one run of blocks, on the calling thread: what a product unpacks its tiles with.
using Unpack = void (*)(const void* blocks, void* y, std::int64_t n);
Unpack unpacker(Format, Dtype to);

/// c (m, n) = a (m, k) w^T + bias + residual with w (n, k) in blocks and few rows in a: what gemm/thin.h takes. False, nothing done, for others.
bool thin_product(Queue&, Format, const Gemm&, const void* a, const void* blocks, void* c);

/// Whether quantize() knows the format: Q8_0 and Q4_0.
constexpr bool can_quantize(Format format) { return format == Format::q8_0 || format == Format::q4_0; }
/// blocks of x (n, whole blocks, finite), with the bits that llama.cpp's reference rounding gives: Q8_0 to nearest, halves away from zero; Q4_0
/// by truncating x (1 / d) + 8.5. A block of zeros, or too small for a scale, is zeros.
void quantize(Queue&, Format, const float* x, void* blocks, std::int64_t n);

}  // namespace mezzo::kernels
