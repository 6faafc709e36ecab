// own_checksum.cpp - writes the digits into a finished file, and checks them in one that is opened.
#include "io/own_checksum.h"

#include <fmt/core.h>

#include "core/fail.h"

namespace mezzo::io {
namespace {

std::string digits(std::uint64_t checksum) { return fmt::format("{:016x}", checksum); }

}  // namespace

void seal(AtomicFile& file, std::size_t at) { file.overwrite(at, digits(file.checksum())); }

void require_sealed(std::span<const std::byte> file, std::size_t at, std::size_t length, const std::filesystem::path& path) {
  if (length == kNoChecksum.size() && at <= file.size() - length) {
    Checksum64 checksum;
    checksum.update(file.first(at));
    checksum.update(as_bytes(kNoChecksum));
    checksum.update(file.subspan(at + length));
    if (as_text(file.subspan(at, length)) == digits(checksum.value())) return;
  }
  fail("read", fmt::format("{}: altered since it was written: its checksum (`{}`) differs", path.native(), kChecksumKey),
       "copy it again, or export it again");
}

}  // namespace mezzo::io
