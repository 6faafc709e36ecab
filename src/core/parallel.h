// parallel.h - the one way to use several threads: a fixed partition of a range.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace mezzo {

/// A borrowed callable, without allocation.
template <class Signature> class FunctionRef;
template <class R, class... A> class FunctionRef<R(A...)> {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      // NOLINTNEXTLINE(bugprone-forwarding-reference-overload): the constraint keeps it away from copies
      FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* o, A... a) -> R { return (*static_cast<std::remove_reference_t<F>*>(o))(a...); }) {}
  R operator()(A... a) const { return call_(object_, a...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

/// Runs body(part) for part in [0, parts), on up to num_threads() threads: part p always runs on worker
/// p mod threads, in rising order. Nested calls, and calls while another thread uses the pool, run serially with the same parts.
/// An exception in a part is rethrown here (the first by part number).
void parallel_parts(int parts, FunctionRef<void(int)> body);

/// Lets OpenMP code of other libraries (oneDNN), called from this thread, use num_threads() threads. OpenMP keeps that number for
/// each thread, so whoever hands work to such a library calls this first; it costs a comparison.
void share_num_threads();

struct Range {
  std::int64_t begin = 0, end = 0;
};
/// Part `part` of [0, n) cut into `parts` nearly equal ranges that begin at multiples of `align`; empty when there are more parts than multiples.
inline Range part_range(std::int64_t n, int parts, int part, std::int64_t align = 1) {
  const std::int64_t units = (n + align - 1) / align, base = units / parts, longer = units % parts;  // the first `longer` parts have one unit more
  const auto begin = [&](std::int64_t p) { return (base * p + std::min(p, longer)) * align; };
  return {std::min(begin(part), n), std::min(begin(part + 1), n)};
}

/// Number of parts that parallel_for cuts [0, n) into: a function of n, grain and num_threads() only; 0 for n <= 0.
int partition_count(std::int64_t n, std::int64_t grain);

/// Cuts [0, n) into partition_count(n, grain) nearly equal ranges, each of at least `grain` items where n allows, and runs
/// body(begin, end) on each. Ranges begin at multiples of `align`, so a vector kernel's tail stays in the last one;
/// ranges that this leaves empty are not run.
void parallel_for(std::int64_t n, std::int64_t grain, FunctionRef<void(std::int64_t, std::int64_t)> body, std::int64_t align = 1);

}  // namespace mezzo
