// test_dtype.cpp - names, format facts, promotion and dispatch.
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

#include <doctest/doctest.h>

#include "dtype/dispatch.h"

using namespace mezzo;

namespace {
constexpr Dtype kAll[] = {f32, f16, bf16, f64, i32, i64, u8, boolean};
}

TEST_CASE("names go there and back") {
  for (Dtype t : kAll) {
    CHECK(dtype_from_name(name(t)) == t);
    std::ostringstream out;
    out << t;
    CHECK(out.str() == name(t));
  }
  CHECK(name(f16) == "f16");
  CHECK(name(boolean) == "bool");
  CHECK_THROWS_WITH_AS(dtype_from_name("bf61"), doctest::Contains("got \"bf61\""), Error);
  CHECK_THROWS_WITH_AS(dtype_from_name("f1"), doctest::Contains("did you mean"), Error);
}

TEST_CASE("format facts follow from the numbers of bits, and agree with std::numeric_limits") {
  for (Dtype t : {f32, f16, bf16, f64}) {
    const FormatInfo f = format_info(t);
    const int bias = (1 << (f.exponent_bits - 1)) - 1;
    CHECK(f.bits == 1 + f.exponent_bits + f.mantissa_bits);
    CHECK(f.bits == static_cast<int>(8 * size_of(t)));
    CHECK(f.epsilon == std::ldexp(1, -f.mantissa_bits));
    CHECK(f.min_normal == std::ldexp(1, 1 - bias));
    CHECK(f.min_subnormal == std::ldexp(1, 1 - bias - f.mantissa_bits));
    CHECK(f.max == std::ldexp(2 - f.epsilon, bias));
  }
  CHECK(format_info(f16).max == 65504);
  CHECK(format_info(f32).max == static_cast<double>(std::numeric_limits<float>::max()));
  CHECK(format_info(f64).max == std::numeric_limits<double>::max());
  CHECK(format_info(f32).min_subnormal == static_cast<double>(std::numeric_limits<float>::denorm_min()));
  for (Dtype t : {i32, i64, u8, boolean}) CHECK_THROWS_WITH_AS(format_info(t), doctest::Contains(std::string(name(t)).c_str()), Error);
}

TEST_CASE("promotion is a join: symmetric, idempotent, associative among floats and among integers") {
  for (Dtype a : kAll) {
    CHECK(promote(a, a) == a);
    for (Dtype b : kAll) {
      const Dtype c = promote(a, b);
      CHECK(c == promote(b, a));
      CHECK(promote(c, a) == c);
      CHECK(promote(c, b) == c);
      CHECK(is_floating(c) == (is_floating(a) || is_floating(b)));
      if (is_floating(a) && !is_floating(b)) CHECK(c == a);
      for (Dtype d : kAll)
        if (is_floating(a) == is_floating(b) && is_floating(b) == is_floating(d)) CHECK(promote(promote(a, b), d) == promote(a, promote(b, d)));
    }
  }
  CHECK(promote(f16, bf16) == f32);
  CHECK(promote(f16, f32) == f32);
  CHECK(promote(bf16, f64) == f64);
  CHECK(promote(i64, f16) == f16);
  CHECK(promote(u8, i32) == i32);
  CHECK(promote(i32, i64) == i64);
  CHECK(promote(boolean, u8) == u8);
}

TEST_CASE("dispatch calls the lambda with the dtype's type") {
  for (Dtype t : kAll) {
    CHECK(dispatch_all(t, "op", [&]<class T> { return dtype_of<T> == t && sizeof(T) == size_of(t); }));
    const auto type = [&]<class T> { return dtype_of<T>; };
    if (is_floating(t)) CHECK(dispatch_float(t, "op", type) == t);
    if (is_16bit(t)) CHECK(dispatch_16bit(t, "op", type) == t);
    if (t != boolean) CHECK(dispatch_number(t, "op", type) == t);
  }
  CHECK(dispatch_index(i32, "op", []<class T> { return sizeof(T); }) == 4);
  CHECK(dispatch_low_or_f32(bf16, "op", []<class T> { return sizeof(T); }) == 2);
  int calls = 0;
  dispatch_float(f32, "op", [&]<class T> { ++calls; });
  CHECK(calls == 1);
}

TEST_CASE("a dtype that does not fit is an Error that names op and dtype") {
  const auto nothing = []<class T> {};
  CHECK_THROWS_WITH_AS(dispatch_float(i64, "gelu", nothing), "[gelu] got dtype i64, wanted f32, f16, bf16 or f64.", Error);
  CHECK_THROWS_WITH_AS(dispatch_16bit(f32, "cast", nothing), "[cast] got dtype f32, wanted f16 or bf16.", Error);
  CHECK_THROWS_WITH_AS(dispatch_index(f32, "gather", nothing), "[gather] got dtype f32, wanted i32 or i64.", Error);
  CHECK_THROWS_WITH_AS(dispatch_number(boolean, "add", nothing), "[add] got dtype bool, wanted a number (not bool).", Error);
}
