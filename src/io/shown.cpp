// shown.cpp - text out of a file, fit for a message.
#include "io/shown.h"

namespace mezzo::io {

std::string shown(std::string_view name) {
  constexpr std::size_t kLongest = 100;
  std::string out(name.substr(0, kLongest));
  if (name.size() > kLongest) {
    while (!out.empty() && (out.back() & 0xC0) == 0x80) out.pop_back();  // not in the middle of a code point
    if (!out.empty() && (out.back() & 0x80)) out.pop_back();
    out += "...";
  }
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return out;
}

}  // namespace mezzo::io
