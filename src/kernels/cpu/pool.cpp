// pool.cpp - pooling of planes, row by row. Storage T, sums f32, one rounding on store; f64: ref/.
//
// A row of the result is taken in two steps: down the rows of x that its windows cover, vectors along the row, into a buffer; then along the
// buffer. Backward is the same walk with the windows turned round: an element of x takes from the windows that it lies in, so nothing is scattered.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pool.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/kernels.h"
#include "kernels/ref/pool.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

/// Lanes of p at begin[lane] + k (each lane's k-th place), and which lanes have so many. p has room for a vector after its last place.
template <class D> struct Taken {
  hn::Vec<D> value;
  hn::Mask<D> valid;
};
template <class D, class T> HWY_INLINE Taken<D> Take(D d, const Windows& w, const T* p, std::size_t i, std::int64_t k) {
  const hn::RebindToSigned<D> di;
  const auto step = hn::Set(di, static_cast<std::int32_t>(k));
  // Windows' tables have room for a vector after their last place, where count is 0.
  const auto valid = hn::RebindMask(d, hn::Gt(hn::LoadU(di, w.count + i), step));
  if (w.together) return {hn::LoadU(d, p + w.begin[i] + k), valid};
  const auto at = hn::IfThenElseZero(hn::RebindMask(di, valid), hn::Add(hn::LoadU(di, w.begin + i), step));
  return {hn::GatherIndex(d, p, at), valid};
}

}  // namespace

/// y = the sum of what each element takes, times its share or theirs. x is (sides of x), y (windows' sizes); buffer: a row of x and a vector more.
/// `theirs`: shares belong to the elements of x (backward), else to those of y.
void AveragePlane(Dtype dtype, const PlaneWindows& w, bool theirs, std::int64_t columns, const void* x_p, void* y_p, float* buffer) {
  dispatch_low_or_f32(dtype, "avg_pool", [&]<class T>() {
    const hn::ScalableTag<float> d;
    for (std::int64_t row = 0; row < w.rows.n; ++row) {
      const T* x = static_cast<const T*>(x_p) + w.rows.begin[row] * columns;
      T* y = static_cast<T*>(y_p) + row * w.columns.n;
      ForEachVector(d, static_cast<std::size_t>(columns), [&](std::size_t i, auto access) MEZZO_BODY {
        auto sum = hn::Zero(d);
        for (std::int64_t k = 0; k < w.rows.count[row]; ++k) {
          const auto v = access.Load(d, x + k * columns + i);
          sum = theirs ? hn::MulAdd(v, hn::Set(d, w.rows.share[w.rows.begin[row] + k]), sum) : hn::Add(sum, v);
        }
        access.Store(theirs ? hn::Mul(sum, access.Load(d, w.columns.share + i)) : sum, d, buffer + i);
      });
      const auto share = hn::Set(d, theirs ? 1.0f : w.rows.share[row]);
      ForEachVector(d, static_cast<std::size_t>(w.columns.n), [&](std::size_t i, auto access) MEZZO_BODY {
        auto sum = hn::Zero(d);
        for (std::int64_t k = 0; k < w.columns.most; ++k) {
          const auto t = Take(d, w.columns, buffer, i, k);
          sum = hn::Add(sum, hn::IfThenElseZero(t.valid, t.value));
        }
        if (!theirs) sum = hn::Mul(sum, hn::Mul(share, access.Load(d, w.columns.share + i)));
        access.Store(sum, d, y + i);
      });
    }
  });
}

/// y and index of one plane; buffers: a row of x and a vector more, each.
void MaxPlane(Dtype dtype, const PlaneWindows& w, std::int64_t columns, const void* x_p, void* y_p, std::int32_t* index, float* values,
              std::int32_t* places) {
  dispatch_low_or_f32(dtype, "max_pool", [&]<class T>() {
    const hn::ScalableTag<float> d;
    const hn::RebindToSigned<decltype(d)> di;
    const auto lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
    const auto nowhere = hn::Set(di, std::numeric_limits<std::int32_t>::max());
    const std::size_t lanes = hn::Lanes(d);
    // The larger, of equal ones the earlier; a NaN over any number.
    const auto better = [&](auto v, auto at, auto best, auto best_at) MEZZO_BODY {
      const auto earlier = hn::And(hn::Eq(v, best), hn::RebindMask(d, hn::Lt(at, best_at)));
      return hn::Or(hn::Or(hn::Gt(v, best), earlier), hn::And(hn::IsNaN(v), hn::Not(hn::IsNaN(best))));
    };
    for (std::int64_t row = 0; row < w.rows.n; ++row) {
      const T* x = static_cast<const T*>(x_p) + w.rows.begin[row] * columns;
      ForEachVector(d, static_cast<std::size_t>(columns), [&](std::size_t i, auto access) MEZZO_BODY {
        auto best = lowest;
        auto best_at = nowhere;
        for (std::int64_t k = 0; k < w.rows.count[row]; ++k) {
          const auto v = access.Load(d, x + k * columns + i);
          const auto at = hn::Iota(di, static_cast<std::int32_t>((w.rows.begin[row] + k) * columns + static_cast<std::int64_t>(i)));
          const auto take = better(v, at, best, best_at);
          best = hn::IfThenElse(take, v, best);
          best_at = hn::IfThenElse(hn::RebindMask(di, take), at, best_at);
        }
        hn::StoreU(best, d, values + i);  // the buffers have room for a vector more
        hn::StoreU(best_at, di, places + i);
      });
      T* y = static_cast<T*>(y_p) + row * w.columns.n;
      for (std::size_t i = 0, n = static_cast<std::size_t>(w.columns.n); i < n; i += lanes) {
        auto best = lowest;
        auto best_at = nowhere;
        for (std::int64_t k = 0; k < w.columns.most; ++k) {
          const auto v = Take(d, w.columns, values, i, k);
          const auto at = Take(di, w.columns, places, i, k).value;
          const auto take = hn::And(v.valid, better(v.value, at, best, best_at));
          best = hn::IfThenElse(take, v.value, best);
          best_at = hn::IfThenElse(hn::RebindMask(di, take), at, best_at);
        }
        const std::size_t left = std::min(lanes, n - i);
        if (left == lanes) StoreF32(best, d, y + i);
        else StoreF32(best, d, y + i, left);
        if (!index) continue;
        std::int32_t* out = index + row * w.columns.n + static_cast<std::int64_t>(i);
        if (left == lanes) {
          hn::StoreU(best_at, di, out);
        } else {
          HWY_ALIGN std::int32_t lane[hn::MaxLanes(di)];
          hn::Store(best_at, di, lane);
          std::copy_n(lane, left, out);
        }
      }
    }
  });
}

/// dx of one plane: each element takes dy from the windows whose index it is. dy, index: planes of the result, with room for a vector more.
void MaxBackwardPlane(Dtype dtype, const PlaneWindows& w, std::int64_t columns, const std::int32_t* index, const float* dy, void* dx_p) {
  dispatch_low_or_f32(dtype, "max_pool_backward", [&]<class T>() {
    const hn::ScalableTag<float> d;
    const hn::RebindToSigned<decltype(d)> di;
    for (std::int64_t row = 0; row < w.rows.n; ++row) {
      T* dx = static_cast<T*>(dx_p) + row * w.columns.n;
      ForEachVector(d, static_cast<std::size_t>(w.columns.n), [&](std::size_t i, auto access) MEZZO_BODY {
        const auto self = hn::Iota(di, static_cast<std::int32_t>(row * w.columns.n + static_cast<std::int64_t>(i)));
        auto sum = hn::Zero(d);
        for (std::int64_t r = 0; r < w.rows.count[row]; ++r) {
          const std::int64_t from = (w.rows.begin[row] + r) * columns;
          for (std::int64_t k = 0; k < w.columns.most; ++k) {
            const auto grad = Take(d, w.columns, dy + from, i, k);
            const auto chosen = hn::Eq(Take(di, w.columns, index + from, i, k).value, self);
            sum = hn::Add(sum, hn::IfThenElseZero(hn::And(grad.valid, hn::RebindMask(d, chosen)), grad.value));
          }
        }
        access.Store(sum, d, dx + i);
      });
    }
  });
}

}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
HWY_EXPORT(AveragePlane);
HWY_EXPORT(MaxPlane);
HWY_EXPORT(MaxBackwardPlane);
namespace {

constexpr std::int64_t kRoom = 16;  // the widest vector of f32

/// One dimension's windows, or for `backward` what each element of x lies in.
class Table {
 public:
  Table(Queue& queue, const Pool& p, int d, bool backward)
      : n_(backward ? p.in[d] : p.out[d]), block_(queue.scratch(static_cast<std::size_t>(2 * n_ + p.out[d] + 3 * kRoom) * sizeof(std::int32_t))) {
    auto* begin = block_.as<std::int32_t>();
    std::int32_t* count = begin + n_ + kRoom;
    auto* share = reinterpret_cast<float*>(count + n_ + kRoom);
    std::fill_n(begin, 2 * (n_ + kRoom), 0);
    for (std::int64_t i = 0; i < p.out[d]; ++i) {
      const ref::PoolWindow w = ref::pool_window(p, d, i);
      share[i] = 1.0f / static_cast<float>(w.size);
      if (!backward) {
        begin[i] = static_cast<std::int32_t>(w.begin);
        count[i] = static_cast<std::int32_t>(w.end - w.begin);
      } else {
        for (std::int64_t x = w.begin; x < w.end; ++x)
          if (count[x]++ == 0) begin[x] = static_cast<std::int32_t>(i);
      }
    }
    windows_ = {begin, count, share, n_, 0, true};
    for (std::int64_t i = 0; i < n_; ++i) {
      windows_.most = std::max<std::int64_t>(windows_.most, count[i]);
      windows_.together = windows_.together && begin[i] == begin[0] + i && count[i] == count[0];
    }
  }
  const Windows& get() const { return windows_; }

 private:
  std::int64_t n_;
  Block block_;
  Windows windows_{};
};

std::int64_t plane_of(const std::array<std::int64_t, 2>& sides) { return sides[0] * sides[1]; }

/// body(plane, buffer) for every plane, with a buffer of `bytes` for each range of planes.
template <class Body> void by_planes(Queue& queue, const Pool& p, std::size_t bytes, Body body) {
  parallel_for(p.planes, row_grain(std::max(plane_of(p.in), plane_of(p.out))), [&](std::int64_t begin, std::int64_t end) {
    const Block buffer = queue.scratch(bytes);
    for (std::int64_t plane = begin; plane < end; ++plane) body(plane, buffer.as<void>());
  });
}

void average(Queue& queue, Dtype dtype, const Pool& p, bool backward, const void* x, void* y) {
  const Table rows(queue, p, 0, backward), columns(queue, p, 1, backward);
  const PlaneWindows w{rows.get(), columns.get()};
  const auto &from = backward ? p.out : p.in, &to = backward ? p.in : p.out;
  by_planes(queue, p, static_cast<std::size_t>(from[1] + kRoom) * sizeof(float), [&](std::int64_t plane, void* buffer) {
    HWY_DYNAMIC_DISPATCH(AveragePlane)
    (dtype, w, backward, from[1], row_of(x, dtype, plane, plane_of(from)), row_of(y, dtype, plane, plane_of(to)), static_cast<float*>(buffer));
  });
}

}  // namespace

void max_pool(Queue& queue, Dtype dtype, const Pool& p, const void* x, void* y, std::int32_t* index) {
  if (p.planes == 0 || plane_of(p.out) == 0) return;
  if (dtype == f64) return ref::max_pool(p, static_cast<const double*>(x), static_cast<double*>(y), index);
  const Table rows(queue, p, 0, false), columns(queue, p, 1, false);
  const PlaneWindows w{rows.get(), columns.get()};
  const std::int64_t room = p.in[1] + kRoom;
  by_planes(queue, p, static_cast<std::size_t>(2 * room) * sizeof(float), [&](std::int64_t plane, void* buffer) {
    auto* values = static_cast<float*>(buffer);
    HWY_DYNAMIC_DISPATCH(MaxPlane)
    (dtype, w, p.in[1], row_of(x, dtype, plane, plane_of(p.in)), row_of(y, dtype, plane, plane_of(p.out)),
     index ? index + plane * plane_of(p.out) : nullptr, values, reinterpret_cast<std::int32_t*>(values + room));
  });
}

void max_pool_backward(Queue& queue, Dtype dtype, const Pool& p, const std::int32_t* index, const void* dy, void* dx) {
  if (p.planes == 0 || plane_of(p.in) == 0) return;
  if (dtype == f64) return ref::max_pool_backward(p, index, static_cast<const double*>(dy), static_cast<double*>(dx));
  const Table rows(queue, p, 0, true), columns(queue, p, 1, true);
  const PlaneWindows w{rows.get(), columns.get()};
  const std::int64_t out = plane_of(p.out), room = out + kRoom;
  by_planes(queue, p, static_cast<std::size_t>(2 * room) * sizeof(float), [&](std::int64_t plane, void* buffer) {
    auto* wide = static_cast<float*>(buffer);  // dy of the plane in f32, and its index, with room at the end
    auto* places = reinterpret_cast<std::int32_t*>(wide + room);
    convert(queue, dtype, f32, row_of(dy, dtype, plane, out), wide, out);
    std::copy_n(index + plane * out, out, places);
    HWY_DYNAMIC_DISPATCH(MaxBackwardPlane)(dtype, w, p.out[1], places, wide, row_of(dx, dtype, plane, plane_of(p.in)));
  });
}

void avg_pool(Queue& queue, Dtype dtype, const Pool& p, const void* x, void* y) {
  if (p.planes == 0 || plane_of(p.out) == 0) return;
  if (dtype == f64) return ref::avg_pool(p, static_cast<const double*>(x), static_cast<double*>(y));
  average(queue, dtype, p, false, x, y);
}

void avg_pool_backward(Queue& queue, Dtype dtype, const Pool& p, const void* dy, void* dx) {
  if (p.planes == 0 || plane_of(p.in) == 0) return;
  if (dtype == f64) return ref::avg_pool_backward(p, static_cast<const double*>(dy), static_cast<double*>(dx));
  average(queue, dtype, p, true, dy, dx);
}

}  // namespace mezzo::kernels
#endif
