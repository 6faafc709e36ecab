// blocks_test.cpp - blocks against plain decoding in double and against golden values (GGUF's: the `gguf` package's), bit for bit.
#include <random>

#include <mezzo/runtime.h>

#include "guarded.h"
#include "io/safetensors.h"
#include "kernels/blocks.h"
#include "kernels/ref/blocks.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr int kFormats = static_cast<int>(Format::count);

/// Blocks of random bits; an f16 that is Inf or NaN loses its exponent.
Guarded<std::uint8_t> random_blocks(Format format, std::int64_t blocks, std::int64_t offset, unsigned seed) {
  const int bytes = facts(format).bytes;
  std::mt19937 engine(seed);
  Guarded<std::uint8_t> b(blocks * bytes, offset);
  for (std::int64_t i = 0; i < b.size(); ++i) b[i] = static_cast<std::uint8_t>(engine());
  const auto tame = [&](std::int64_t high_byte) {
    if ((b[high_byte] & 0x7c) == 0x7c) b[high_byte] &= 0xc3;
  };
  for (std::int64_t i = 0; i < blocks; ++i) {
    tame(i * bytes + (format == Format::q6_k ? 209 : 1));
    tame(i * bytes + 3);
  }
  return b;
}

template <class T> bool same(const T& a, const T& b) { return std::memcmp(&a, &b, sizeof(T)) == 0; }

/// The element in double, rounded to f32 and then to T, as kernels do.
template <class T> std::vector<T> expected(Format format, const std::uint8_t* blocks, std::int64_t n) {
  const auto [name, elements, bytes] = facts(format);
  std::vector<double> y(n);
  for (std::int64_t i = 0; i < n; i += elements) ref::dequantize_block(format, blocks + i / elements * bytes, &y[i]);
  std::vector<T> out(n);
  for (std::int64_t i = 0; i < n; ++i) out[i] = T(static_cast<float>(y[i]));
  return out;
}

template <class T> void check_format(Format format) {
  const auto [title, elements, bytes] = facts(format);
  const auto name = title;
  CAPTURE(name);
  CAPTURE(mezzo::name(dtype_of<T>));
  for (const std::int64_t blocks : {0, 1, 2, 3, 5, 1500}) {
    const std::int64_t n = blocks * elements;
    const Guarded<std::uint8_t> b = random_blocks(format, blocks, 1, static_cast<unsigned>(blocks) + 1);
    const std::vector<T> want = expected<T>(format, b.data(), n);
    Guarded<T> y(n, 3);
    dequantize(cpu_queue(), format, dtype_of<T>, b.data(), y.data(), 1, n);
    bool all = true;
    for (std::int64_t i = 0; i < n; ++i) all = all && same(y[i], want[i]);
    CHECK(all);
    CHECK(y.intact());
  }
  // A tile: columns [1, 3) of blocks of a matrix five blocks wide, into rows that are further apart.
  const std::int64_t rows = 7, ld = 2 * elements + 5;
  const Guarded<std::uint8_t> b = random_blocks(format, rows * 5, 0, 9);
  Guarded<T> y(rows * ld, 1);
  std::fill_n(y.data(), y.size(), T(7.0f));
  dequantize(cpu_queue(), format, dtype_of<T>, b.data() + bytes, y.data(), rows, 2 * elements, 5 * bytes, ld);
  bool all = true;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::vector<T> want = expected<T>(format, b.data() + (r * 5 + 1) * bytes, 2 * elements);
    for (std::int64_t c = 0; c < ld; ++c) all = all && same(y[r * ld + c], c < 2 * elements ? want[c] : T(7.0f));
  }
  CHECK(all);
  CHECK(y.intact());
}

io::SafetensorsFile golden() { return io::SafetensorsFile("tests/golden/blocks.safetensors"); }
template <class T> const T* values(const io::TensorEntry& e) { return reinterpret_cast<const T*>(e.data.data()); }

}  // namespace

TEST_CASE("dequantize: every format and dtype, whole and in tiles") {
  for (int f = 0; f < kFormats; ++f) {
    check_format<float>(static_cast<Format>(f));
    check_format<f16_t>(static_cast<Format>(f));
    check_format<bf16_t>(static_cast<Format>(f));
  }
}

TEST_CASE("dequantize: the same bits with any number of threads") {
  const int before = num_threads();
  const std::int64_t rows = 33, columns = 256 * 9;
  const Guarded<std::uint8_t> b = random_blocks(Format::q4_k, rows * 9, 0, 4);
  set_num_threads(1);
  Guarded<float> one(rows * columns);
  dequantize(cpu_queue(), Format::q4_k, f32, b.data(), one.data(), rows, columns);
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    Guarded<float> y(rows * columns);
    dequantize(cpu_queue(), Format::q4_k, f32, b.data(), y.data(), rows, columns);
    CHECK(y.same_bits(one));
  }
  set_num_threads(before);
}

TEST_CASE("dequantize: golden values") {
  const io::SafetensorsFile file = golden();
  for (int f = 0; f < kFormats; ++f) {
    const auto format = static_cast<Format>(f);
    const std::string name(facts(format).name);
    CAPTURE(name);
    const auto *blocks = file.find(name + ".blocks"), *want = file.find(name + ".values");
    REQUIRE(blocks);
    REQUIRE(want);
    const std::int64_t n = want->shape[0];
    Guarded<float> y(n);
    dequantize(cpu_queue(), format, f32, blocks->data.data(), y.data(), 1, n);
    CHECK(std::memcmp(y.data(), want->data.data(), want->data.size()) == 0);
  }
}

TEST_CASE("quantize: golden values, and the reference on numbers of all sizes") {
  const io::SafetensorsFile file = golden();
  const io::TensorEntry* x = file.find("x");
  REQUIRE(x);
  for (const Format format : {Format::q8_0, Format::q4_0, Format::nf4}) {
    const auto [title, elements, bytes] = facts(format);
    const auto name = title;
    CAPTURE(name);
    const io::TensorEntry* want = file.find("x." + std::string(name));
    REQUIRE(want);
    Guarded<std::uint8_t> blocks(static_cast<std::int64_t>(want->data.size()), 1);
    quantize(cpu_queue(), format, values<float>(*x), blocks.data(), x->shape[0]);
    CHECK(std::memcmp(blocks.data(), want->data.data(), want->data.size()) == 0);
    CHECK(blocks.intact());

    Normals normal(3);
    for (const double scale : {1e-45, 1e-39, 1e-30, 1e-3, 1.0, 1e4}) {
      CAPTURE(scale);
      const std::int64_t n = 64 * 350;
      const Guarded<float> input(n, 1, [&] { return normal() * scale; });
      Guarded<std::uint8_t> got(n / elements * bytes);
      quantize(cpu_queue(), format, input.data(), got.data(), n);
      std::vector<std::uint8_t> expected(got.size());
      for (std::int64_t i = 0; i < n / elements; ++i) ref::quantize_block(format, &input[i * elements], &expected[i * bytes]);
      CHECK(std::memcmp(got.data(), expected.data(), expected.size()) == 0);
      CHECK(got.intact());
    }
  }
}
