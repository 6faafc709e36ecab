// stopwatch.h - seconds of work: with one thread its processor's, which other programs do not touch; with several, those that pass.
#pragma once

#include <ctime>

#include <mezzo/runtime.h>

namespace mezzo::bench {

inline double seconds() {
  timespec t{};
  ::clock_gettime(num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace mezzo::bench
