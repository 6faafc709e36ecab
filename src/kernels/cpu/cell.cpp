// cell.cpp - recurrent cells between two products: gates and states, forward and backward in one pass over a step's rows. Storage T, arithmetic
// f32, one rounding on store. f64: ref/.
#include "kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cell.cpp"
#include <hwy/foreach_target.h>

#include "core/parallel.h"
#include "dtype/dispatch.h"
#include "kernels/cpu/cell.h"
#include "kernels/cpu/math-inl.h"
#include "kernels/cpu/row-inl.h"
#include "kernels/cpu/rows.h"
#include "kernels/ref/cell.h"

HWY_BEFORE_NAMESPACE();
namespace mezzo::kernels::HWY_NAMESPACE {
namespace {

/// a (1 - a) and (1 - a) (1 + a): the slopes of sigmoid and tanh from their values.
template <class D, class V> HWY_INLINE V SigmoidSlope(D d, V a) { return hn::Mul(a, hn::Sub(hn::Set(d, 1.0f), a)); }
template <class D, class V> HWY_INLINE V TanhSlope(D d, V a) {
  const V one = hn::Set(d, 1.0f);
  return hn::Mul(hn::Sub(one, a), hn::Add(one, a));
}

template <class T> void LstmRow(const CellStep<T, float>& s) {
  const hn::ScalableTag<float> d;
  const auto n = static_cast<std::size_t>(s.n);
  ForEachVector(d, n, [&](std::size_t k, auto access) MEZZO_BODY {
    const auto i = Sigmoid(d, access.Load(d, s.sums + k)), f = Sigmoid(d, access.Load(d, s.sums + n + k)),
               g = Tanh(d, access.Load(d, s.sums + 2 * n + k)), o = Sigmoid(d, access.Load(d, s.sums + 3 * n + k));
    const auto c = hn::MulAdd(f, access.Load(d, s.c_before + k), hn::Mul(i, g));
    access.Store(c, d, s.c + k);
    access.Store(hn::Mul(o, Tanh(d, c)), d, s.h + k);
    if (!s.gates) return;
    access.Store(i, d, s.gates + k);
    access.Store(f, d, s.gates + n + k);
    access.Store(g, d, s.gates + 2 * n + k);
    access.Store(o, d, s.gates + 3 * n + k);
  });
}

template <class T> void GruRow(const CellStep<T, float>& s) {
  const hn::ScalableTag<float> d;
  const auto n = static_cast<std::size_t>(s.n);
  ForEachVector(d, n, [&](std::size_t k, auto access) MEZZO_BODY {
    const auto state_n = access.Load(d, s.state_sums + 2 * n + k), before = access.Load(d, s.h_before + k);
    const auto r = Sigmoid(d, hn::Add(access.Load(d, s.sums + k), access.Load(d, s.state_sums + k))),
               z = Sigmoid(d, hn::Add(access.Load(d, s.sums + n + k), access.Load(d, s.state_sums + n + k))),
               fresh = Tanh(d, hn::MulAdd(r, state_n, access.Load(d, s.sums + 2 * n + k)));
    access.Store(hn::MulAdd(z, hn::Sub(before, fresh), fresh), d, s.h + k);
    if (!s.gates) return;
    access.Store(r, d, s.gates + k);
    access.Store(z, d, s.gates + n + k);
    access.Store(fresh, d, s.gates + 2 * n + k);
    access.Store(state_n, d, s.gates + 3 * n + k);
  });
}

template <bool tanh, class T> void RnnRow(const CellStep<T, float>& s) {
  const hn::ScalableTag<float> d;
  ForEachVector(d, static_cast<std::size_t>(s.n), [&](std::size_t k, auto access) MEZZO_BODY {
    const auto x = access.Load(d, s.sums + k);
    if constexpr (tanh) access.Store(Tanh(d, x), d, s.h + k);
    else access.Store(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x), d, s.h + k);
  });
}

/// What reaches h: from later steps, and from the output.
template <class D, class A, class T> HWY_INLINE hn::VFromD<D> IntoH(D d, A access, const CellStepBack<T, float>& s, std::size_t k) {
  const auto later = access.Load(d, s.dh + k);
  return s.dy ? hn::Add(later, access.Load(d, s.dy + k)) : later;
}

template <class T> void LstmBackwardRow(const CellStepBack<T, float>& s) {
  const hn::ScalableTag<float> d;
  const auto n = static_cast<std::size_t>(s.n);
  ForEachVector(d, n, [&](std::size_t k, auto access) MEZZO_BODY {
    const auto i = access.Load(d, s.gates + k), f = access.Load(d, s.gates + n + k), g = access.Load(d, s.gates + 2 * n + k),
               o = access.Load(d, s.gates + 3 * n + k);
    const auto into_h = IntoH(d, access, s, k), tanh_c = Tanh(d, access.Load(d, s.c + k));
    const auto into_c = hn::MulAdd(hn::Mul(into_h, o), TanhSlope(d, tanh_c), access.Load(d, s.dc + k));
    access.Store(hn::Mul(into_c, f), d, s.dc + k);
    access.Store(hn::Mul(hn::Mul(into_c, g), SigmoidSlope(d, i)), d, s.dsums + k);
    access.Store(hn::Mul(hn::Mul(into_c, access.Load(d, s.c_before + k)), SigmoidSlope(d, f)), d, s.dsums + n + k);
    access.Store(hn::Mul(hn::Mul(into_c, i), TanhSlope(d, g)), d, s.dsums + 2 * n + k);
    access.Store(hn::Mul(hn::Mul(into_h, tanh_c), SigmoidSlope(d, o)), d, s.dsums + 3 * n + k);
  });
}

template <class T> void GruBackwardRow(const CellStepBack<T, float>& s) {
  const hn::ScalableTag<float> d;
  const auto n = static_cast<std::size_t>(s.n);
  ForEachVector(d, n, [&](std::size_t k, auto access) MEZZO_BODY {
    const auto r = access.Load(d, s.gates + k), z = access.Load(d, s.gates + n + k), fresh = access.Load(d, s.gates + 2 * n + k),
               state_n = access.Load(d, s.gates + 3 * n + k);
    const auto into_h = IntoH(d, access, s, k);
    const auto dn = hn::Mul(hn::Mul(into_h, hn::Sub(hn::Set(d, 1.0f), z)), TanhSlope(d, fresh));
    const auto dr = hn::Mul(hn::Mul(dn, state_n), SigmoidSlope(d, r)),
               dz = hn::Mul(hn::Mul(into_h, hn::Sub(access.Load(d, s.h_before + k), fresh)), SigmoidSlope(d, z));
    access.Store(hn::Mul(into_h, z), d, s.dh + k);
    access.Store(dr, d, s.dsums + k);
    access.Store(dz, d, s.dsums + n + k);
    access.Store(dn, d, s.dsums + 2 * n + k);
    access.Store(dr, d, s.dstate_sums + k);
    access.Store(dz, d, s.dstate_sums + n + k);
    access.Store(hn::Mul(dn, r), d, s.dstate_sums + 2 * n + k);
  });
}

template <bool tanh, class T> void RnnBackwardRow(const CellStepBack<T, float>& s) {
  const hn::ScalableTag<float> d;
  ForEachVector(d, static_cast<std::size_t>(s.n), [&](std::size_t k, auto access) MEZZO_BODY {
    const auto h = access.Load(d, s.h + k), into_h = IntoH(d, access, s, k);
    if constexpr (tanh) access.Store(hn::Mul(into_h, TanhSlope(d, h)), d, s.dsums + k);
    else access.Store(hn::IfThenElse(hn::Le(h, hn::Zero(d)), hn::Zero(d), into_h), d, s.dsums + k);
    access.Store(hn::Zero(d), d, s.dh + k);
  });
}

template <class T> void Forward(Cell cell, const CellStep<T, float>& row) {
  switch (cell) {
    case Cell::rnn_tanh: return RnnRow<true>(row);
    case Cell::rnn_relu: return RnnRow<false>(row);
    case Cell::lstm: return LstmRow(row);
    default: return GruRow(row);
  }
}
template <class T> void Back(Cell cell, const CellStepBack<T, float>& row) {
  switch (cell) {
    case Cell::rnn_tanh: return RnnBackwardRow<true>(row);
    case Cell::rnn_relu: return RnnBackwardRow<false>(row);
    case Cell::lstm: return LstmBackwardRow(row);
    default: return GruBackwardRow(row);
  }
}

// HWY_EXPORT takes no templates.
void ForwardF32(Cell cell, const CellStep<float, float>& row) { Forward(cell, row); }
void ForwardF16(Cell cell, const CellStep<f16_t, float>& row) { Forward(cell, row); }
void ForwardBf16(Cell cell, const CellStep<bf16_t, float>& row) { Forward(cell, row); }
void BackF32(Cell cell, const CellStepBack<float, float>& row) { Back(cell, row); }
void BackF16(Cell cell, const CellStepBack<f16_t, float>& row) { Back(cell, row); }
void BackBf16(Cell cell, const CellStepBack<bf16_t, float>& row) { Back(cell, row); }

}  // namespace
}  // namespace mezzo::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mezzo::kernels {
namespace {

HWY_EXPORT(ForwardF32);
HWY_EXPORT(ForwardF16);
HWY_EXPORT(ForwardBf16);
HWY_EXPORT(BackF32);
HWY_EXPORT(BackF16);
HWY_EXPORT(BackBf16);

void forward(Cell cell, const CellStep<float, float>& row) { HWY_DYNAMIC_DISPATCH(ForwardF32)(cell, row); }
void forward(Cell cell, const CellStep<f16_t, float>& row) { HWY_DYNAMIC_DISPATCH(ForwardF16)(cell, row); }
void forward(Cell cell, const CellStep<bf16_t, float>& row) { HWY_DYNAMIC_DISPATCH(ForwardBf16)(cell, row); }
void back(Cell cell, const CellStepBack<float, float>& row) { HWY_DYNAMIC_DISPATCH(BackF32)(cell, row); }
void back(Cell cell, const CellStepBack<f16_t, float>& row) { HWY_DYNAMIC_DISPATCH(BackF16)(cell, row); }
void back(Cell cell, const CellStepBack<bf16_t, float>& row) { HWY_DYNAMIC_DISPATCH(BackBf16)(cell, row); }
void forward(Cell cell, const CellStep<double, double>& row) { ref::cell_row(cell, row); }
void back(Cell cell, const CellStepBack<double, double>& row) { ref::cell_row_backward(cell, row); }

}  // namespace

void cell(Queue&, Cell cell, Dtype dtype, const void* sums, const void* state_sums, const void* h_before, const void* c_before, void* h, void* c,
          void* gates, std::int64_t b, std::int64_t hidden) {
  dispatch_float(dtype, "cell", [&]<class T>() {
    using W = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const CellStep<T, W> step{static_cast<const W*>(sums),
                              static_cast<const W*>(state_sums),
                              static_cast<const T*>(h_before),
                              static_cast<const W*>(c_before),
                              static_cast<T*>(h),
                              static_cast<W*>(c),
                              static_cast<T*>(gates),
                              hidden};
    parallel_for(b, row_grain(4 * hidden), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) forward(cell, step.row(cell, r));
    });
  });
}

void cell_backward(Queue&, Cell cell, Dtype dtype, const void* gates, const void* h, const void* h_before, const void* c_before, const void* c,
                   const void* dy, void* dh, void* dc, void* dsums, void* dstate_sums, std::int64_t b, std::int64_t hidden) {
  dispatch_float(dtype, "cell_backward", [&]<class T>() {
    using W = std::conditional_t<std::is_same_v<T, double>, double, float>;
    const CellStepBack<T, W> step{static_cast<const T*>(gates),
                                  static_cast<const T*>(h),
                                  static_cast<const T*>(h_before),
                                  static_cast<const W*>(c_before),
                                  static_cast<const W*>(c),
                                  static_cast<const T*>(dy),
                                  static_cast<W*>(dh),
                                  static_cast<W*>(dc),
                                  static_cast<T*>(dsums),
                                  static_cast<T*>(dstate_sums),
                                  hidden};
    parallel_for(b, row_grain(4 * hidden), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) back(cell, step.row(cell, r));
    });
  });
}

}  // namespace mezzo::kernels
#endif
