// cell.h - recurrent cells, one element of one row at a time: f64's path, and the oracle.
#pragma once

#include <cmath>

#include "kernels/cpu/cell.h"
#include "kernels/ref/elementwise.h"

namespace mezzo::kernels::ref {

template <class T> struct LstmStep { T i, f, g, o, c, h; };
/// The four sums of an element and its cell before.
template <class T> LstmStep<T> lstm(T i, T f, T g, T o, T c_before) {
  LstmStep<T> s{sigmoid(i), sigmoid(f), std::tanh(g), sigmoid(o), {}, {}};
  s.c = s.f * c_before + s.i * s.g;
  s.h = s.o * std::tanh(s.c);
  return s;
}
template <class T> struct LstmSlopes { T i, f, g, o, c_before; };
/// From the step's gates and cells, and the gradients of h and c.
template <class T> LstmSlopes<T> lstm_backward(T i, T f, T g, T o, T c_before, T c, T dh, T dc) {
  const T tanh_c = std::tanh(c), into_c = dc + dh * o * (1 - tanh_c) * (1 + tanh_c);
  return {into_c * g * i * (1 - i), into_c * c_before * f * (1 - f), into_c * i * (1 - g) * (1 + g), dh * tanh_c * o * (1 - o), into_c * f};
}

template <class T> struct GruStep { T r, z, n, h; };
/// The input's three sums, the state's three, and the state before.
template <class T> GruStep<T> gru(T r, T z, T n, T state_r, T state_z, T state_n, T h_before) {
  GruStep<T> s{sigmoid(r + state_r), sigmoid(z + state_z), {}, {}};
  s.n = std::tanh(n + s.r * state_n);
  s.h = s.n + s.z * (h_before - s.n);
  return s;
}
template <class T> struct GruSlopes { T r, z, n, state_n, h_before; };
template <class T> GruSlopes<T> gru_backward(T r, T z, T n, T state_n, T h_before, T dh) {
  const T dn = dh * (1 - z) * (1 - n) * (1 + n);
  return {dn * state_n * r * (1 - r), dh * (h_before - n) * z * (1 - z), dn, dn * r, dh * z};
}

/// One row of a step, as kernels.h defines `cell` and `cell_backward`.
template <class T> void cell_row(Cell cell, const CellStep<T, T>& s) {
  const auto n = s.n;
  for (std::int64_t k = 0; k < n; ++k) {
    if (cell == Cell::lstm) {
      const auto e = lstm(s.sums[k], s.sums[n + k], s.sums[2 * n + k], s.sums[3 * n + k], s.c_before[k]);
      s.c[k] = e.c;
      s.h[k] = e.h;
      if (s.gates) s.gates[k] = e.i, s.gates[n + k] = e.f, s.gates[2 * n + k] = e.g, s.gates[3 * n + k] = e.o;
    } else if (cell == Cell::gru) {
      const T state_n = s.state_sums[2 * n + k];
      const auto e = gru(s.sums[k], s.sums[n + k], s.sums[2 * n + k], s.state_sums[k], s.state_sums[n + k], state_n, s.h_before[k]);
      s.h[k] = e.h;
      if (s.gates) s.gates[k] = e.r, s.gates[n + k] = e.z, s.gates[2 * n + k] = e.n, s.gates[3 * n + k] = state_n;
    } else {
      s.h[k] = cell == Cell::rnn_tanh ? std::tanh(s.sums[k]) : s.sums[k] < 0 ? T(0) : s.sums[k];
    }
  }
}
template <class T> void cell_row_backward(Cell cell, const CellStepBack<T, T>& s) {
  const auto n = s.n;
  for (std::int64_t k = 0; k < n; ++k) {
    const T dh = s.dh[k] + (s.dy ? s.dy[k] : T(0));
    if (cell == Cell::lstm) {
      const auto e = lstm_backward(s.gates[k], s.gates[n + k], s.gates[2 * n + k], s.gates[3 * n + k], s.c_before[k], s.c[k], dh, s.dc[k]);
      s.dsums[k] = e.i, s.dsums[n + k] = e.f, s.dsums[2 * n + k] = e.g, s.dsums[3 * n + k] = e.o;
      s.dc[k] = e.c_before;
    } else if (cell == Cell::gru) {
      const auto e = gru_backward(s.gates[k], s.gates[n + k], s.gates[2 * n + k], s.gates[3 * n + k], s.h_before[k], dh);
      s.dsums[k] = s.dstate_sums[k] = e.r, s.dsums[n + k] = s.dstate_sums[n + k] = e.z, s.dsums[2 * n + k] = e.n;
      s.dstate_sums[2 * n + k] = e.state_n;
      s.dh[k] = e.h_before;
    } else {
      s.dsums[k] = cell == Cell::rnn_tanh ? dh * (1 - s.h[k]) * (1 + s.h[k]) : s.h[k] > 0 ? dh : T(0);
      s.dh[k] = 0;
    }
  }
}

}  // namespace mezzo::kernels::ref
