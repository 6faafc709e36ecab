// dtype.cpp - names, format facts and the promotion table.
#include <mezzo/dtype.h>

#include <array>
#include <limits>
#include <ostream>

#include "core/fail.h"

namespace mezzo {
namespace {

constexpr std::size_t kDtypes = 8;
constexpr std::array<std::string_view, kDtypes> kNames = {"f32", "f16", "bf16", "f64", "i32", "i64", "u8", "bool"};

constexpr std::size_t index(Dtype t) { return static_cast<std::size_t>(t); }

// Row with column. A float with an integer is the float; two 16-bit floats meet in f32, the smallest that holds both.
constexpr Dtype kPromotion[kDtypes][kDtypes] = {
    //            f32  f16  bf16  f64  i32   i64   u8    bool
    /* f32  */ {f32, f32, f32, f64, f32, f32, f32, f32},
    /* f16  */ {f32, f16, f32, f64, f16, f16, f16, f16},
    /* bf16 */ {f32, f32, bf16, f64, bf16, bf16, bf16, bf16},
    /* f64  */ {f64, f64, f64, f64, f64, f64, f64, f64},
    /* i32  */ {f32, f16, bf16, f64, i32, i64, i32, i32},
    /* i64  */ {f32, f16, bf16, f64, i64, i64, i64, i64},
    /* u8   */ {f32, f16, bf16, f64, i32, i64, u8, u8},
    /* bool */ {f32, f16, bf16, f64, i32, i64, u8, boolean},
};

}  // namespace

std::string_view name(Dtype t) { return kNames[index(t)]; }

Dtype dtype_from_name(std::string_view given) {
  for (std::size_t i = 0; i < kDtypes; ++i)
    if (kNames[i] == given) return static_cast<Dtype>(i);
  fail("dtype_from_name", fmt::format("got \"{}\", wanted one of f32, f16, bf16, f64, i32, i64, u8, bool", given), near_names(given, kNames));
}

std::ostream& operator<<(std::ostream& out, Dtype t) { return out << name(t); }

FormatInfo format_info(Dtype t) {
  switch (t) {
    case Dtype::f32: return {32, 8, 23, 0x1.fffffep127, 0x1p-126, 0x1p-149, 0x1p-23};
    case Dtype::f16: return {16, 5, 10, 65504, 0x1p-14, 0x1p-24, 0x1p-10};
    case Dtype::bf16: return {16, 8, 7, 0x1.fep127, 0x1p-126, 0x1p-133, 0x1p-7};
    case Dtype::f64: return {64, 11, 52, std::numeric_limits<double>::max(), 0x1p-1022, 0x1p-1074, 0x1p-52};
    default: break;
  }
  fail("format_info", fmt::format("got {}, wanted a floating dtype (f32, f16, bf16, f64)", name(t)));
}

Dtype promote(Dtype a, Dtype b) { return kPromotion[index(a)][index(b)]; }

}  // namespace mezzo
