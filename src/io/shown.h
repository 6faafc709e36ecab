// shown.h - text out of a file, fit for a message.
#pragma once

#include <string>
#include <string_view>

namespace mezzo::io {

/// On one line, and not endless.
std::string shown(std::string_view text);

}  // namespace mezzo::io
