// parallel_backend.h - what a thread pool must do for parallel.cpp; one of parallel_openmp.cpp and parallel_threads.cpp is built.
#pragma once

#include "core/parallel.h"

namespace mezzo::detail {

/// Runs work(worker, team) once on each worker of a team of at most `threads`, the caller being worker 0, and returns when all
/// have returned. Called by one thread at a time; `work` does not throw.
void run_team(int threads, FunctionRef<void(int, int)> work) noexcept;

/// Whether the caller is inside somebody's parallel region already.
bool in_foreign_team() noexcept;

/// Makes libraries that fork OpenMP teams from this thread (oneDNN) use n threads.
void set_openmp_threads(int n) noexcept;

}  // namespace mezzo::detail
