// signal_test.cpp - a signal that arrives in the middle of a product or convolution finds the thread on its own stack: a kernel that lets the stack
// pointer point elsewhere has the handler's frame written over whatever lies there.
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#include <atomic>
#include <chrono>
#include <vector>

#include "core/parallel.h"
#include "kernels_gemm/product_case.h"

using namespace mezzo;
using namespace mezzo::test;

#if defined(__x86_64__) && defined(__linux__)
namespace {

pthread_t computing;
std::atomic<std::uintptr_t> low, high;
std::atomic<int> on_stack, elsewhere;

void on_signal(int, siginfo_t*, void* context) {
  if (!pthread_equal(pthread_self(), computing)) return;  // a thread of the pool that waits
  const auto pointer = static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RSP]);
  ++(pointer >= low && pointer < high ? on_stack : elsewhere);
}

/// Sends the process, whose only thread that computes is this one, a signal every half millisecond of its time; handled on another stack, so that
/// nothing breaks here.
class Signals {
 public:
  Signals() : threads_(num_threads()), stack_(1 << 16) {
    set_num_threads(1);
    computing = pthread_self();
    pthread_attr_t attributes;
    REQUIRE(pthread_getattr_np(pthread_self(), &attributes) == 0);
    void* bottom = nullptr;
    std::size_t size = 0;
    pthread_attr_getstack(&attributes, &bottom, &size);
    pthread_attr_destroy(&attributes);
    low = reinterpret_cast<std::uintptr_t>(bottom);
    high = low + size;
    on_stack = elsewhere = 0;
    stack_t other{};
    other.ss_sp = stack_.data();
    other.ss_size = stack_.size();
    REQUIRE(sigaltstack(&other, nullptr) == 0);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaction(SIGPROF, &action, &before_);
    const itimerval often{{0, 500}, {0, 500}};
    setitimer(ITIMER_PROF, &often, nullptr);
  }
  ~Signals() {
    const itimerval never{};
    setitimer(ITIMER_PROF, &never, nullptr);
    signal(SIGPROF, SIG_IGN);  // drops what is still pending for another thread
    sigaction(SIGPROF, &before_, nullptr);
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
    set_num_threads(threads_);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  int threads_;
  std::vector<char> stack_;
  struct sigaction before_ {};
};

/// Runs f for some signals' time.
template <class F> void run_a_while(F f) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(40);
  do f();
  while (std::chrono::steady_clock::now() < end);
}

}  // namespace

TEST_CASE("a signal finds the stack where it belongs: products") {
  const Signals signals;
  const auto products = [](auto t, auto c) {
    for (const bool trans_a : {false, true}) {
      for (const bool trans_b : {false, true}) {
        for (const std::int64_t m : {32, 300}) {
          Gemm g;
          g.m = m, g.n = 256, g.k = trans_a ? 2200 : 600;  // so long a sum of a transposed A is oneDNN's in f32
          g.trans_a = trans_a, g.trans_b = trans_b;
          g.beta = trans_a;
          Product<decltype(t), decltype(c)> p(g, {}, Integers(1));
          run_a_while([&] { p.run(); });
          CHECK_MESSAGE(elsewhere == 0, describe(p.g));
          elsewhere = 0;
        }
      }
    }
  };
  products(float(), float());
  products(bf16_t(), bf16_t());
  products(bf16_t(), float());
  products(f16_t(), float());
  CHECK(on_stack > 0);
}

TEST_CASE("a signal finds the stack where it belongs: convolutions") {
  const Signals signals;
  for (const Dtype dtype : {f32, bf16}) {
    kernels::Conv conv;
    conv.dtype = conv.result = kernels::conv_dtype(dtype);
    conv.n = 2, conv.c = 24, conv.o = 40;
    conv.in = {1, 20, 20}, conv.out = {1, 18, 18}, conv.kernel = {1, 3, 3};
    const auto bytes = static_cast<std::int64_t>(size_of(conv.dtype));
    const std::vector<char> x(static_cast<std::size_t>(2 * 400 * 24 * bytes)), w(static_cast<std::size_t>(40 * 9 * 24 * bytes));
    std::vector<char> y(static_cast<std::size_t>(2 * 324 * 40 * bytes)), dx(x.size());
    std::vector<float> dw(40 * 9 * 24);
    run_a_while([&] { kernels::conv(cpu_queue(), conv, x.data(), w.data(), nullptr, y.data()); });
    run_a_while([&] { kernels::conv_input_grad(cpu_queue(), conv, w.data(), y.data(), dx.data()); });
    run_a_while([&] { kernels::conv_weight_grad(cpu_queue(), conv, x.data(), y.data(), dw.data(), true); });
    CHECK(elsewhere == 0);
  }
  CHECK(on_stack > 0);
}
#endif
