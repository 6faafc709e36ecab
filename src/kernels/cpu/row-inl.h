// row-inl.h - loops over a row of any length: whole vectors, then the same body on the tail's lanes; sums and other folds on top.
//
// A body is a lambda (index, access) MEZZO_BODY { ... } that touches memory through `access` only:
//   access.Load(d, p)         elements of f32, f16 or bf16 as f32; zero beyond the end
//   access.Store(v, d, p)     rounded once; memory beyond the end is not touched
//   access.Keep(d, v, other)  v, with the lanes beyond the end replaced
#if defined(MEZZO_KERNELS_CPU_ROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MEZZO_KERNELS_CPU_ROW_INL_H_
#undef MEZZO_KERNELS_CPU_ROW_INL_H_
#else
#define MEZZO_KERNELS_CPU_ROW_INL_H_
#endif

#include <algorithm>
#include <cstddef>

#include <hwy/highway.h>

#include "kernels/cpu/convert-inl.h"

// A lambda does not inherit the target of the function around it.
#undef MEZZO_BODY
#define MEZZO_BODY HWY_ATTR __attribute__((always_inline))

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct Whole {
  template <class D, class T> HWY_INLINE hn::VFromD<D> Load(D d, const T* p) const { return LoadF32(d, p); }
  template <class D, class T> HWY_INLINE void Store(hn::VFromD<D> v, D d, T* p) const { StoreF32(v, d, p); }
  template <class D, class V> HWY_INLINE V Keep(D, V v, V) const { return v; }
};

struct Tail {
  std::size_t n;  // lanes that exist, fewer than Lanes(d)
  template <class D, class T> HWY_INLINE hn::VFromD<D> Load(D d, const T* p) const { return LoadF32(d, p, n); }
  template <class D, class T> HWY_INLINE void Store(hn::VFromD<D> v, D d, T* p) const { StoreF32(v, d, p, n); }
  template <class D, class V> HWY_INLINE V Keep(D d, V v, V other) const { return hn::IfThenElse(hn::FirstN(d, n), v, other); }
};

/// body(i, access) for every vector that begins at i in [0, n).
template <class D, class Body> HWY_INLINE void ForEachVector(D d, std::size_t n, Body body) {
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, Whole{});
  if (i < n) body(i, Tail{n - i});
}

/// acc = step(acc, i, access) for every vector of [0, n), in four accumulators that hide the latency of a step; then join(a, b).
template <class D, class A, class Step, class Join> HWY_INLINE A Fold(D d, std::size_t n, A init, Step step, Join join) {
  const std::size_t lanes = hn::Lanes(d);
  A a0 = init, a1 = init, a2 = init, a3 = init;  // named: GCC spills an array
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a0 = step(a0, i, Whole{});
    a1 = step(a1, i + lanes, Whole{});
    a2 = step(a2, i + 2 * lanes, Whole{});
    a3 = step(a3, i + 3 * lanes, Whole{});
  }
  for (; i + lanes <= n; i += lanes) a0 = step(a0, i, Whole{});
  if (i < n) a1 = step(a1, i, Tail{n - i});
  return join(join(a0, a1), join(a2, a3));
}

// f32 lanes add up this many elements; their sums are added in f64, so a row of 150,000 is summed as well as a short one.
inline constexpr std::size_t kSumBlock = 2048;

/// Sum over [0, n) of the lanes of term(i, access).
template <class D, class Term> HWY_INLINE double Sum(D d, std::size_t n, Term term) {
  using V = hn::VFromD<D>;
  double total = 0;
  for (std::size_t begin = 0; begin < n; begin += kSumBlock) {
    const V sum = Fold(
        d, std::min(kSumBlock, n - begin), hn::Zero(d),
        [&](V acc, std::size_t i, auto access) MEZZO_BODY { return hn::Add(acc, access.Keep(d, term(begin + i, access), hn::Zero(d))); },
        [](V a, V b) MEZZO_BODY { return hn::Add(a, b); });
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

/// Two sums over one pass: term returns both vectors.
template <class V> struct Two { V first, second; };
template <class D, class Term> HWY_INLINE Two<double> SumTwo(D d, std::size_t n, Term term) {
  using V = hn::VFromD<D>;
  Two<double> total{0, 0};
  for (std::size_t begin = 0; begin < n; begin += kSumBlock) {
    const Two<V> sum = Fold(
        d, std::min(kSumBlock, n - begin), Two<V>{hn::Zero(d), hn::Zero(d)},
        [&](Two<V> acc, std::size_t i, auto access) MEZZO_BODY {
          const Two<V> t = term(begin + i, access);
          return Two<V>{hn::Add(acc.first, access.Keep(d, t.first, hn::Zero(d))), hn::Add(acc.second, access.Keep(d, t.second, hn::Zero(d)))};
        },
        [](Two<V> a, Two<V> b) MEZZO_BODY {
          return Two<V>{hn::Add(a.first, b.first), hn::Add(a.second, b.second)};
        });
    total.first += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum.first)));
    total.second += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum.second)));
  }
  return total;
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
