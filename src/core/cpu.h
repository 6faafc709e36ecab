// cpu.h - what the machine grants this process: cores and bytes.
#pragma once

#include <cstdint>

namespace mezzo {

/// Physical cores among the CPUs of the affinity mask, at most the cgroup's quota (rounded down); at least 1.
int usable_cores();
/// Bytes of RAM, or the cgroup's limit where that is lower.
std::int64_t usable_memory();

}  // namespace mezzo
