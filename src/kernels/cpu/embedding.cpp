// embedding.cpp - rows of a table by id, and their gradient: sums of rows by id, in f32 (f64 for f64), in a fixed order.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/embedding.cpp"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/dry_run.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/conversion.h"
#include "kernels/cpu/layout.h"
#include "kernels/cpu/loops-inl.h"
#include "kernels/ref/convert.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

struct Sum {
  template <class D, class V> HWY_INLINE V operator()(D, V a, V b) const { return hn::Add(a, b); }
};

template <class T> void AddRow(const void* x, void* sums_p, std::int64_t n) {
  auto* sums = static_cast<float*>(sums_p);
  Map(n, sums, Sum(), Elements<float>{sums}, Elements<T>{static_cast<const T*>(x)});
}

using RowSum = void (*)(const void* x, void* sums, std::int64_t n);
RowSum PickRowSum(Dtype t) { return t == f32 ? AddRow<float> : t == f16 ? AddRow<f16_t> : AddRow<bf16_t>; }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(PickRowSum);

using RowSum = void (*)(const void* x, void* sums, std::int64_t n);

template <class From, class To> void add_row_plain(const void* x, void* sums, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) static_cast<To*>(sums)[i] += ref::cast<To>(static_cast<const From*>(x)[i]);
}

RowSum row_sum(Dtype from, Dtype to) {
  if (to == f32 && from != f64) return HWY_DYNAMIC_DISPATCH(PickRowSum)(from);
  return dispatch_float(from, "scatter_add_rows",
                        [&]<class From>() -> RowSum { return to == f64 ? add_row_plain<From, double> : add_row_plain<From, float>; });
}

struct Entry {
  std::uint32_t id, position;
};

// Stable radix sort by id, ids below v: 11 bits a pass. The result is in `entries` or in `other`.
Entry* sort_by_id(Entry* entries, Entry* other, std::int64_t n, std::int64_t v) {
  constexpr int kBits = 11;
  for (int shift = 0; (v - 1) >> shift != 0; shift += kBits) {
    const auto digit = [&](const Entry& e) { return e.id >> shift & ((1u << kBits) - 1); };
    std::array<std::uint32_t, 1 << kBits> next{};
    for (std::int64_t i = 0; i < n; ++i) ++next[digit(entries[i])];
    std::uint32_t sum = 0;
    for (std::uint32_t& x : next) sum += std::exchange(x, sum);
    for (std::int64_t i = 0; i < n; ++i) other[next[digit(entries[i])]++] = entries[i];
    std::swap(entries, other);
  }
  return entries;
}

}  // namespace

void gather_rows(Queue&, Dtype from, Dtype to, Dtype ids_dtype, const void* table, const void* ids, void* y, std::int64_t n, std::int64_t c) {
  const std::size_t table_bytes = size_of(from), y_bytes = size_of(to);
  const Conversion convert = conversion(from, to);
  dispatch_index(ids_dtype, "gather_rows", [&]<class I>() {
    parallel_for(n, std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, c)), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) convert(at(table, static_cast<const I*>(ids)[i] * c, table_bytes), at(y, i * c, y_bytes), c);
    });
  });
}

// Positions sorted by id make runs of one id each, in rising order. A thread adds the runs that begin in its range, for a strip of columns:
// a row of sums has one writer and a fixed order, and a very frequent id is shared by as many threads as there are strips.
void scatter_add_rows(Queue& queue, Dtype from, Dtype to, Dtype ids_dtype, const void* dy, const void* ids, void* sums, std::int64_t n,
                      std::int64_t v, std::int64_t c, std::int64_t skip) {
  constexpr std::int64_t kStrip = 256;
  if (n == 0 || c == 0) return;
  MEZZO_CHECK(n <= std::int64_t{UINT32_MAX} && v <= std::int64_t{UINT32_MAX});
  const Block workspace = queue.scratch(2 * static_cast<std::size_t>(n) * sizeof(Entry));
  if (DryRun::active()) return;
  auto* entries = workspace.as<Entry>();
  std::int64_t count = 0;
  dispatch_index(ids_dtype, "scatter_add_rows", [&]<class I>() {
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t id = static_cast<const I*>(ids)[i];
      if (id != skip) entries[count++] = {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(i)};
    }
  });
  const Entry* sorted = sort_by_id(entries, entries + n, count, v);

  const RowSum add = row_sum(from, to);
  const std::size_t dy_bytes = size_of(from), sum_bytes = size_of(to);
  const std::int64_t strips = (c + kStrip - 1) / kStrip;
  const auto run_begin = [&](std::int64_t i) {  // the first run that begins at i or later
    while (0 < i && i < count && sorted[i].id == sorted[i - 1].id) ++i;
    return i;
  };
  parallel_for(strips * count, std::max<std::int64_t>(1, kGrain / std::min(c, kStrip)), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t strip = begin / count; strip * count < end; ++strip) {
      const std::int64_t column = strip * kStrip, columns = std::min(kStrip, c - column);
      const std::int64_t first = run_begin(std::max<std::int64_t>(0, begin - strip * count)), last = run_begin(std::min(count, end - strip * count));
      for (std::int64_t i = first; i < last; ++i)
        add(at(dy, sorted[i].position * c + column, dy_bytes), at(sums, sorted[i].id * c + column, sum_bytes), columns);
    }
  });
}

}  // namespace mezzo::kernels
#endif
