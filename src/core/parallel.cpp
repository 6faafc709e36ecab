// parallel.cpp - the partition, the rules for nested and concurrent calls, and exceptions; the threads are the back end's.
#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <limits>
#include <mutex>

#include <mezzo/runtime.h>

#include "core/dry_run.h"
#include "core/fail.h"
#include "core/parallel_backend.h"

namespace mezzo {
namespace {

constexpr int kMaxThreads = 4096;

int default_threads() {
  const char* wanted = std::getenv("MEZZO_NUM_THREADS");
  if (!wanted || !*wanted) return cpu_info().cores;
  char* end = nullptr;
  const long n = std::strtol(wanted, &end, 10);
  if (*end != '\0' || n < 1 || n > kMaxThreads)
    fail("num_threads", fmt::format("MEZZO_NUM_THREADS={} is not a number from 1 to {}", wanted, kMaxThreads));
  return static_cast<int>(n);
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> n{default_threads()};
  return n;
}

std::mutex pool_mutex;              // held while a team runs
thread_local bool in_team = false;  // this thread is running a part of a team

// The exception of the smallest part number among those thrown.
class FirstError {
 public:
  void keep(int part) noexcept {
    const std::lock_guard lock(mutex_);
    if (part >= part_) return;
    part_ = part;
    error_ = std::current_exception();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  int part_ = std::numeric_limits<int>::max();
  std::exception_ptr error_;
};

void run_serially(int parts, FunctionRef<void(int)> body) {
  for (int part = 0; part < parts; ++part) body(part);
}

}  // namespace

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) fail("set_num_threads", fmt::format("got {} threads, wanted 1 to {}", n, kMaxThreads));
  thread_setting() = n;
  share_num_threads();
}

int num_threads() { return thread_setting().load(std::memory_order_relaxed); }

void share_num_threads() {
  thread_local int shared = 0;
  if (const int n = num_threads(); n != shared) detail::set_openmp_threads(shared = n);
}

void parallel_parts(int parts, FunctionRef<void(int)> body) {
  if (DryRun::active()) return;
  const int threads = std::min(num_threads(), parts);
  if (threads <= 1 || in_team || detail::in_foreign_team()) return run_serially(parts, body);
  const std::unique_lock pool(pool_mutex, std::try_to_lock);
  if (!pool) return run_serially(parts, body);

  FirstError error;
  detail::run_team(threads, [&](int worker, int team) {
    in_team = true;
    for (int part = worker; part < parts; part += team) {
      try {
        body(part);
      } catch (...) {
        error.keep(part);
        break;  // this worker's later parts have higher numbers
      }
    }
    in_team = false;
  });
  error.rethrow();
}

int partition_count(std::int64_t n, std::int64_t grain) {
  if (n <= 0) return 0;
  return static_cast<int>(std::clamp<std::int64_t>(n / std::max<std::int64_t>(grain, 1), 1, num_threads()));
}

void parallel_for(std::int64_t n, std::int64_t grain, FunctionRef<void(std::int64_t, std::int64_t)> body, std::int64_t align) {
  const int parts = partition_count(n, grain);
  if (parts == 0 || DryRun::active()) return;
  if (parts == 1) return body(0, n);
  parallel_parts(parts, [&](int part) {
    const Range range = part_range(n, parts, part, align);
    if (range.begin < range.end) body(range.begin, range.end);
  });
}

}  // namespace mezzo
