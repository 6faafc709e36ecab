// dry_run.h - walking through work to learn what it would need: tensors take addresses but no memory, kernels compute nothing.
#pragma once

#include <cstdint>
#include <memory>

namespace mezzo {

/// While one lives, this thread's allocations come out of an allocator of its own, whose pages nothing touches, and memory_report() speaks of
/// them; parallel_for and products return at once. What was allocated under it must be freed under it. Values are undefined, mostly zeros: a
/// program whose course depends on them takes some course. Does not nest.
class DryRun {
 public:
  [[nodiscard]] DryRun();
  ~DryRun();
  DryRun(const DryRun&) = delete;
  DryRun& operator=(const DryRun&) = delete;
  /// Whether this thread is in one.
  static bool active() noexcept;
  /// Bytes of all allocations so far, freed ones included: about what the work writes.
  std::int64_t allocated() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mezzo
