// parallel.h - the one way to use several threads: a fixed partition of a range.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace mezzo {

/// A borrowed callable, without allocation.
template <class Signature> class FunctionRef;
template <class R, class... A>
class FunctionRef<R(A...)> {
 public:
  template <class F> requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
  FunctionRef(F&& f) : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
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

/// Number of parts that parallel_for cuts [0, n) into: a function of n, grain and num_threads() only.
int partition_count(std::int64_t n, std::int64_t grain);

/// Cuts [0, n) into partition_count(n, grain) nearly equal ranges, each of at least `grain` items where n allows, and runs
/// body(begin, end) on each. Ranges begin at multiples of `align`, so a vector kernel's tail stays in the last one.
void parallel_for(std::int64_t n, std::int64_t grain, FunctionRef<void(std::int64_t, std::int64_t)> body, std::int64_t align = 1);

}  // namespace mezzo
