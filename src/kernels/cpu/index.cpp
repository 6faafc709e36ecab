// index.cpp - torch's gather and scatter_add along a dim, and the bounds of indices. Loads and stores at computed places: no vector code.
#include <algorithm>

#include "core/dry_run.h"
#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/layout.h"
#include "kernels/kernels.h"
#include "kernels/ref/index.h"

namespace mezzo::kernels {
namespace {

// f(U()): an integer with the bits of an element.
template <class F> void with_bits(Dtype dtype, F&& f) {
  switch (size_of(dtype)) {
    case 1: return f(std::uint8_t());
    case 2: return f(std::uint16_t());
    case 4: return f(std::uint32_t());
    default: return f(std::uint64_t());
  }
}

// Any partition gives the same bits: each element of y gets its terms in the order of k. Columns are shared out where there are enough of
// them; otherwise destinations, and every thread reads all indices.
template <class A, class T, class I>
void scatter_add_into(const T* src, const I* index, A* y, std::int64_t outer, std::int64_t to_n, std::int64_t n, std::int64_t inner) {
  constexpr std::int64_t kEnough = 64;
  if (outer * inner >= kEnough) {
    parallel_for(outer * inner, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, n)), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end;) {
        const std::int64_t o = i / inner, stop = std::min(end, (o + 1) * inner);
        ref::scatter_add(src + o * n * inner, index + o * n * inner, y + o * to_n * inner, n, inner, i - o * inner, stop - o * inner, 0, to_n);
        i = stop;
      }
    });
    return;
  }
  const std::int64_t grain = n * inner * outer < kGrain ? to_n : 1;
  parallel_for(to_n, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t o = 0; o < outer; ++o)
      ref::scatter_add(src + o * n * inner, index + o * n * inner, y + o * to_n * inner, n, inner, 0, inner, first, last);
  });
}

}  // namespace

void gather(Queue&, Dtype dtype, Dtype index_dtype, const void* x, const void* index, void* y, std::int64_t outer, std::int64_t from_n,
            std::int64_t n, std::int64_t inner) {
  with_bits(dtype, [&]<class U>(U) {
    dispatch_index(index_dtype, "gather", [&]<class I>() {
      parallel_for(
          outer * n * inner, kGrain,
          [&](std::int64_t begin, std::int64_t end) {
            ref::gather(static_cast<const U*>(x), static_cast<const I*>(index), static_cast<U*>(y), from_n, n, inner, begin, end);
          },
          kAlign);
    });
  });
}

void scatter_add(Queue& queue, Dtype dtype, Dtype index_dtype, const void* src, const void* index, void* y, std::int64_t outer, std::int64_t to_n,
                 std::int64_t n, std::int64_t inner) {
  const std::int64_t results = outer * to_n * inner;
  Block workspace;
  void* sums = y;
  if (is_16bit(dtype)) {
    workspace = queue.scratch(static_cast<std::size_t>(results) * sizeof(float));
    sums = workspace.as<void>();
    convert(queue, dtype, f32, y, sums, results);
  }
  dispatch_number(dtype, "scatter_add", [&]<class T>() {
    dispatch_index(index_dtype, "scatter_add", [&]<class I>() {
      scatter_add_into(static_cast<const T*>(src), static_cast<const I*>(index), static_cast<ref::Wide<T>*>(sums), outer, to_n, n, inner);
    });
  });
  if (is_16bit(dtype)) convert(queue, f32, dtype, sums, y, results);
}

void index_bounds(Queue& queue, Dtype index_dtype, const void* index, std::int64_t n, std::int64_t* bounds) {
  const int parts = std::max(1, partition_count(n, kGrain));
  const Block workspace = queue.scratch(static_cast<std::size_t>(parts) * sizeof(ref::Bounds));
  auto* partial = workspace.as<ref::Bounds>();
  if (DryRun::active()) {
    bounds[0] = bounds[1] = 0;
    return;
  }
  dispatch_index(index_dtype, "index_bounds", [&]<class I>() {
    parallel_parts(parts, [&](int part) {
      const Range range = part_range(n, parts, part);
      partial[part] = ref::index_bounds(static_cast<const I*>(index) + range.begin, range.end - range.begin);
    });
  });
  ref::Bounds all;
  for (int part = 0; part < parts; ++part) all = {std::min(all.low, partial[part].low), std::max(all.high, partial[part].high)};
  bounds[0] = all.low;
  bounds[1] = all.high;
}

}  // namespace mezzo::kernels
