// log.h - messages to the sink that the program set.
#pragma once

#include <string_view>

#include <mezzo/runtime.h>

namespace mezzo {

void log(LogLevel, std::string_view message);
/// Once per process for each `key`.
void log_once(LogLevel, std::string_view key, std::string_view message);

}  // namespace mezzo
