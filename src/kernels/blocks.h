// blocks.h - weights in blocks of small numbers with a scale, most as GGUF files hold them: facts of each format, unpacking and packing.
//
// The formats are ggml's, by its names (github.com/ggml-org/ggml, docs/gguf.md and ggml-common.h describe them): 32 elements with an f16 scale
// (and, in the _1 formats, an f16 minimum), or, in the _K formats, 256 elements whose sub-blocks have 6- or 8-bit scales of their own. NF4 is in no
// file: the NormalFloat of Dettmers, Pagnoni, Holtzman, Zettlemoyer, QLoRA (arXiv 2305.14314, section 3), 64 codes of 4 bits that stand for levels
// in [-1, 1] between which equal shares of a normal distribution lie, times the block's largest magnitude, an f16 here: 4.25 bits an element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/kernels.h"

namespace mezzo::kernels {

enum class Format : std::uint8_t { q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k, nf4, count };

struct FormatFacts {
  std::string_view name;  ///< as GGUF tools print it
  int elements, bytes;    ///< of a block
  double bits() const { return 8.0 * bytes / elements; }
};
constexpr FormatFacts facts(Format format) {
  constexpr FormatFacts kFacts[] = {{"Q8_0", 32, 34},   {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22}, {"Q5_1", 32, 24},
                                    {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210}, {"NF4", 64, 34}};
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

/// NF4's levels (QLoRA, appendix E), in the order of their codes.
inline constexpr float kNormalFloat[16] = {-1.0f,
                                           -0.6961928009986877f,
                                           -0.5250730514526367f,
                                           -0.39491748809814453f,
                                           -0.28444138169288635f,
                                           -0.18477343022823334f,
                                           -0.09105003625154495f,
                                           0.0f,
                                           0.07958029955625534f,
                                           0.16093020141124725f,
                                           0.24611230194568634f,
                                           0.33791524171829224f,
                                           0.44070982933044434f,
                                           0.5626170039176941f,
                                           0.7229568362236023f,
                                           1.0f};

/// Whether GGUF has the format.
constexpr bool in_gguf(Format format) { return format != Format::nf4; }
/// Whether quantize() knows the format: Q8_0, Q4_0 and NF4.
constexpr bool can_quantize(Format format) { return format == Format::q8_0 || format == Format::q4_0 || format == Format::nf4; }
/// The largest magnitude that the format's scale, an f16, can stand for.
constexpr double largest(Format format) { return 65504.0 * (format == Format::q8_0 ? 127 : format == Format::nf4 ? 1 : 8); }
/// blocks of x (n, whole blocks, at most largest(format)). Q8_0 and Q4_0 with the bits that llama.cpp's reference rounding gives: Q8_0 to nearest,
/// halves away from zero; Q4_0 by truncating x (1 / d) + 8.5. NF4: the level nearest to x (1 / d), d the scale as it is stored; half way between
/// two, the lower. A block of zeros, or too small for a scale, is zeros.
void quantize(Queue&, Format, const float* x, void* blocks, std::int64_t n);

}  // namespace mezzo::kernels
