// parallel_threads.cpp - thread teams from a pool of std::thread, for builds where OpenMP's runtime is in the way (thread sanitizer, Clang).
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/parallel_backend.h"
#include "core/sanitizer.h"

// oneDNN brings an OpenMP runtime of its own; there is one to talk to only when it is linked.
extern "C" [[gnu::weak]] void omp_set_num_threads(int);

namespace mezzo::detail {
namespace {

// Kernels follow each other within microseconds, a futex wake-up takes tens: look for work a little before sleeping.
constexpr int kSpins = 2000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

using Work = FunctionRef<void(int, int)>;

class Pool {
 public:
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      ++round_;
    }
    start_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void run(int team, Work work) {
    team = grow(team);
    {
      const std::lock_guard lock(mutex_);
      work_ = &work;
      team_ = team;
      running_.store(team - 1, std::memory_order_relaxed);
      round_.fetch_add(1, std::memory_order_release);
    }
    start_.notify_all();
    work(0, team);
    for (int i = 0; i < kSpins; ++i) {
      if (running_.load(std::memory_order_acquire) == 0) return;
      relax();
    }
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return running_.load(std::memory_order_acquire) == 0; });
  }

 private:
  // The size of the team that can be had, at most `team`: the system may refuse threads.
  int grow(int team) noexcept {
    try {
      while (static_cast<int>(threads_.size()) < team - 1)
        threads_.emplace_back([this, worker = static_cast<int>(threads_.size()) + 1] { serve(worker); });
    } catch (const std::exception&) { team = static_cast<int>(threads_.size()) + 1; }
    return team;
  }

  void serve(int worker) {
    for (std::uint64_t seen = 0;;) {
      for (int i = 0; i < kSpins && round_.load(std::memory_order_acquire) == seen; ++i) relax();
      const Work* work = nullptr;
      int team = 0;
      {
        std::unique_lock lock(mutex_);
        start_.wait(lock, [&] { return round_.load(std::memory_order_relaxed) != seen; });
        if (stop_) return;
        seen = round_.load(std::memory_order_relaxed);
        if (worker >= team_) continue;  // this round's team is smaller
        work = work_;
        team = team_;
      }
      (*work)(worker, team);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard lock(mutex_);  // the caller is either before its test or asleep
        done_.notify_one();
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  std::atomic<std::uint64_t> round_{0};
  std::atomic<int> running_{0};
  const Work* work_ = nullptr;
  int team_ = 0;
  bool stop_ = false;
};

}  // namespace

void run_team(int threads, Work work) noexcept {
  static Pool pool;
  pool.run(threads, work);
}

bool in_foreign_team() noexcept { return false; }

void set_openmp_threads(int n) noexcept {
  if (omp_set_num_threads) omp_set_num_threads(MEZZO_TSAN ? 1 : n);  // its runtime is not instrumented: races that are none
}

}  // namespace mezzo::detail
