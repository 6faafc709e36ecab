// machine.h - what the machine is and grants this process: cores and bytes.
#pragma once

#include <cstdint>

namespace mezzo {

/// Physical cores among the CPUs of the affinity mask, at most the cgroup's quota (rounded down); at least 1.
int usable_cores();
/// Bytes of RAM, or the cgroup's limit where that is lower.
std::int64_t usable_memory();
/// Bytes of one instance of the data (or unified) cache of that level, as the first CPU sees it; 0 where unknown.
std::int64_t data_cache(int level);

}  // namespace mezzo
