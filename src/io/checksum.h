// checksum.h - CRC-32C, as record formats want it, and a fast 64-bit checksum for files of our own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace mezzo::io {

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `bytes`; `crc` is that of the bytes before them. The CPU's instruction where there is one.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0) noexcept;

/// XXH3, 64 bits (xxhash.h; the algorithm is frozen since 0.8.0), fed in pieces of any size. Finds damage, not malice.
class Checksum64 {
 public:
  Checksum64();
  Checksum64(Checksum64&&) noexcept;
  Checksum64& operator=(Checksum64&&) noexcept;
  ~Checksum64();
  void update(std::span<const std::byte>) noexcept;
  std::uint64_t value() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};
std::uint64_t checksum64(std::span<const std::byte>) noexcept;

namespace detail {
std::uint32_t crc32c_table(std::span<const std::byte>, std::uint32_t crc) noexcept;
std::uint32_t crc32c_sse42(std::span<const std::byte>, std::uint32_t crc) noexcept;  // only where the CPU has SSE4.2
}  // namespace detail

}  // namespace mezzo::io
