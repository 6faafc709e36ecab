// encoding.h - how a tensor's elements lie in a file: one by one, or in blocks; to f32 and back.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <mezzo/dtype.h>

#include "core/parallel.h"
#include "kernels/blocks.h"

namespace mezzo::io {

struct Encoding {
  Dtype dtype = f32;                                    ///< of single elements
  std::optional<kernels::Format> blocks = {};           ///< or else this, along the innermost dimension
  Encoding(Dtype d = f32) : dtype(d) {}                 // NOLINT(google-explicit-constructor): a dtype is an encoding
  Encoding(kernels::Format format) : blocks(format) {}  // NOLINT(google-explicit-constructor)
  friend bool operator==(const Encoding&, const Encoding&) = default;
};

/// "F32", "BF16", "Q4_1", ...
std::string name(const Encoding&);
/// What GGUF's tools and ours call an encoding, upper or lower case. Error that lists them otherwise.
Encoding encoding_from_name(std::string_view);

/// Bytes of n elements that lie together; blocks: n must be whole ones. Error naming `what` if they are not, or the bytes do not fit 63 bits.
std::int64_t byte_count(const Encoding&, std::int64_t n, std::string_view what);
/// Of a tensor: the innermost dimension must be whole blocks.
std::int64_t byte_count(const Encoding&, std::span<const std::int64_t> shape, std::string_view what);

/// y (n; f32, f16 or bf16) = elements that lie together in a file, at any alignment. Floating dtypes and blocks only.
void decode(const Encoding&, const std::byte* data, Dtype to, void* y, std::int64_t n);

/// Whether encode() knows it: F32 F16 BF16 Q8_0 Q4_0.
bool can_encode(const Encoding&);
/// Hands x (n) to `sink` in the encoding, in pieces. Error naming `what` where a value or a block's scale is not finite in it.
void encode(const Encoding&, const float* x, std::int64_t n, std::string_view what, FunctionRef<void(std::span<const std::byte>)> sink);

}  // namespace mezzo::io
