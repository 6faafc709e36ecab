// own_checksum.h - model files that carry a checksum of themselves: an entry of their metadata, which other programs pass over.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

#include "io/file.h"

namespace mezzo::io {

/// The entry's key, and its value until the rest of the file is known: Checksum64 of the whole file as if this still stood there, in hexadecimal.
inline constexpr std::string_view kChecksumKey = "mezzo.xxh3";
inline constexpr std::string_view kNoChecksum = "0000000000000000";

/// Puts the checksum of all that was written into its place, `at` bytes from the beginning, where kNoChecksum stands. The last thing before commit().
void seal(AtomicFile&, std::size_t at);
/// Error unless the `length` digits that stand `at` bytes from the beginning are the file's checksum.
void require_sealed(std::span<const std::byte> file, std::size_t at, std::size_t length, const std::filesystem::path& path);

}  // namespace mezzo::io
