// encoding.cpp - names and sizes of encodings.
#include "io/encoding.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <vector>

#include <fmt/core.h>

#include "core/fail.h"
#include "io/safetensors.h"

namespace mezzo::io {
namespace {

using kernels::Format;

constexpr std::pair<std::string_view, Dtype> kDtypeNames[] = {{"F32", f32}, {"F16", f16}, {"BF16", bf16}, {"F64", f64},
                                                              {"I32", i32}, {"I64", i64}, {"U8", u8},     {"BOOL", boolean}};

}  // namespace

std::string name(const Encoding& e) {
  if (e.blocks) return std::string(kernels::facts(*e.blocks).name);
  return std::string(std::find_if(std::begin(kDtypeNames), std::end(kDtypeNames), [&](const auto& d) { return d.second == e.dtype; })->first);
}

Encoding encoding_from_name(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  for (const auto& [known, dtype] : kDtypeNames)
    if (upper == known) return dtype;
  for (int f = 0; f < static_cast<int>(Format::count); ++f)
    if (upper == kernels::facts(static_cast<Format>(f)).name && kernels::in_gguf(static_cast<Format>(f))) return static_cast<Format>(f);
  fail("encoding", fmt::format("`{}`, one of F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K was expected", text),
       upper == "NF4" ? "GGUF has no NF4; of its types Q4_0 has as many bits" : "");
}

std::int64_t byte_count(const Encoding& e, std::int64_t n, std::string_view what) {
  if (!e.blocks) return byte_count(e.dtype, std::span(&n, 1), what);
  const auto [name, elements, bytes] = kernels::facts(*e.blocks);
  if (n % elements != 0) fail("tensor", fmt::format("{}: {} elements in {}, whole blocks of {} were expected", what, n, name, elements));
  std::int64_t total = n / elements;
  if (n < 0 || __builtin_mul_overflow(total, bytes, &total))
    fail("tensor", fmt::format("{}: {} elements, more bytes than 63 bits can count", what, n));
  return total;
}

std::int64_t byte_count(const Encoding& e, std::span<const std::int64_t> shape, std::string_view what) {
  if (!e.blocks) return byte_count(e.dtype, shape, what);
  const std::int64_t row = byte_count(e, shape.empty() ? 1 : shape.back(), what);
  std::vector<std::int64_t> rows(shape.begin(), shape.end());
  rows.back() = row;
  return byte_count(u8, rows, what);
}

}  // namespace mezzo::io
