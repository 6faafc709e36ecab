// parallel_openmp.cpp - thread teams from OpenMP: the pool that oneDNN uses too, so the two never compete for cores.
#include <omp.h>

#include "core/parallel_backend.h"

namespace mezzo::detail {

void run_team(int threads, FunctionRef<void(int, int)> work) noexcept {
#pragma omp parallel num_threads(threads)
  work(omp_get_thread_num(), omp_get_num_threads());
}

bool in_foreign_team() noexcept { return omp_in_parallel() != 0; }

void set_openmp_threads(int n) noexcept { omp_set_num_threads(n); }

}  // namespace mezzo::detail
