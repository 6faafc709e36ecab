// test_parts.cpp - the stopwatch for each kind of work.
#include <thread>

#include <doctest/doctest.h>

#include "core/parts.h"

using namespace mezzo;

namespace {

void wait_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }
double of(const PartClock::Seconds& s, Part p) { return s[static_cast<std::size_t>(p)]; }

}  // namespace

TEST_CASE("every moment belongs to the innermost open scope") {
  const auto begin = std::chrono::steady_clock::now();
  PartClock::start();
  wait_ms(2);
  {
    const PartScope norm(Part::norm);
    wait_ms(3);
    {
      const PartScope cast(Part::cast);
      wait_ms(4);
    }
    wait_ms(3);
  }
  const PartClock::Seconds s = PartClock::stop();
  const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  CHECK(of(s, Part::other) >= 0.002);
  CHECK(of(s, Part::norm) >= 0.006);
  CHECK(of(s, Part::cast) >= 0.004);
  double sum = 0;
  for (const double part : s) sum += part;
  CHECK(sum <= passed);
  CHECK(sum >= 0.012);
  CHECK(of(s, Part::attention) == 0);
}

TEST_CASE("nothing is counted before start, after stop, or for another thread") {
  {
    const PartScope off(Part::gemm_forward);
    wait_ms(1);
  }
  PartClock::start();
  std::thread([] {
    const PartScope other(Part::optimizer);
    wait_ms(1);
  }).join();
  const auto first = PartClock::stop();
  {
    const PartScope off(Part::gemm_forward);
    wait_ms(1);
  }
  const auto second = PartClock::stop();
  CHECK(of(first, Part::gemm_forward) == 0);
  CHECK(of(first, Part::optimizer) == 0);
  CHECK(first == second);
}

TEST_CASE("a scope that outlives stop() leaves the next measurement alone") {
  PartClock::start();
  {
    const PartScope open(Part::head_loss);
    PartClock::stop();
    PartClock::start();
  }
  wait_ms(1);
  const auto s = PartClock::stop();
  CHECK(of(s, Part::other) >= 0.001);
}
