// clock.h - the time of day, for what is written down; nothing on the training path asks for it.
#pragma once

#include <chrono>

namespace mezzo::train {

/// Seconds since 1970.
inline double wall_time() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace mezzo::train
