// checksum_test.cpp - CRC-32C against published values and a bit-by-bit oracle; XXH3 against published values and itself in pieces.
#include "io/checksum.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "io/file.h"

using namespace mezzo::io;

namespace {

std::uint32_t crc32c_by_bits(std::span<const std::byte> bytes) {
  std::uint32_t crc = ~0u;
  for (const std::byte b : bytes) {
    crc ^= static_cast<std::uint32_t>(b);
    for (int i = 0; i < 8; ++i) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0u);
  }
  return ~crc;
}

std::vector<std::byte> noise(std::size_t n) {
  std::vector<std::byte> v(n);
  std::uint32_t x = 2463534242u;
  for (auto& b : v) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    b = static_cast<std::byte>(x);
  }
  return v;
}

}  // namespace

TEST_CASE("crc32c: the known answers of RFC 3720, B.4") {
  std::string up, down;
  for (int i = 0; i < 32; ++i) up += static_cast<char>(i), down += static_cast<char>(31 - i);
  using Crc = std::uint32_t (*)(std::span<const std::byte>, std::uint32_t) noexcept;
  std::vector<Crc> all{&crc32c, &detail::crc32c_table};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) all.push_back(&detail::crc32c_sse42);
#endif
  for (const Crc crc : all) {
    CHECK(crc({}, 0) == 0);
    CHECK(crc(as_bytes("123456789"), 0) == 0xE3069283u);
    CHECK(crc(as_bytes(std::string(32, '\0')), 0) == 0x8A9136AAu);
    CHECK(crc(as_bytes(std::string(32, '\xff')), 0) == 0x62A8AB43u);
    CHECK(crc(as_bytes(up), 0) == 0x46DD794Eu);
    CHECK(crc(as_bytes(down), 0) == 0x113FDB5Cu);
    const auto data = noise(80);
    for (std::size_t start = 0; start < 9; ++start)
      for (std::size_t n = 0; n <= 64; ++n) {
        const auto part = std::span(data).subspan(start, n);
        REQUIRE(crc(part, 0) == crc32c_by_bits(part));
        REQUIRE(crc(part.subspan(n / 3), crc(part.first(n / 3), 0)) == crc32c_by_bits(part));  // continued
      }
  }
}

TEST_CASE("checksum64: XXH3's published values, and the same in pieces of any size") {
  CHECK(checksum64({}) == 0x2D06800538D394C2ull);
  CHECK(checksum64(as_bytes("a")) == 0xE6C632B61E964E1Full);
  CHECK(checksum64(as_bytes("abc")) == 0x78AF5F94892F3950ull);
  const auto data = noise(5000);
  for (const std::size_t piece : {1, 7, 63, 64, 240, 241, 1024, 5000}) {
    Checksum64 sum;
    for (std::size_t at = 0; at < data.size(); at += piece) sum.update(std::span(data).subspan(at, std::min(piece, data.size() - at)));
    CHECK(sum.value() == checksum64(data));
    CHECK(sum.value() == checksum64(data));  // looking does not change it
  }
  auto changed = data;
  changed[4321] ^= std::byte{1};
  CHECK(checksum64(changed) != checksum64(data));
}
