// stop.cpp - the signal handler.
#include "cli/stop.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace mezzo::cli {
namespace {

std::atomic<int> caught{0};
std::atomic<const char*> said{nullptr};
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free, "a signal handler may use these");

void on_signal(int number) {
  if (caught.exchange(number) != 0) {
    ::signal(number, SIG_DFL);
    ::raise(number);
    return;
  }
  const auto put = [](const char* text) {
    if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;  // nobody listens
  };
  put("\n");
  put(said.load());
  put(" (once more to quit at once)\n");
}

}  // namespace

void catch_interrupts(const char* promise) {
  said = promise;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return caught.load() != 0; }
int interrupted_code() { return 128 + caught.load(); }

}  // namespace mezzo::cli
