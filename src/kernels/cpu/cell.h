// cell.h - what a step of a recurrent cell reads and writes, as its vector code gets it.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace mezzo::kernels {

/// Row r of p (rows, columns); null stays null.
template <class T> T* cell_row(T* p, std::int64_t r, std::int64_t columns) { return p ? p + r * columns : nullptr; }

/// T: of states and gates; W: of sums and the LSTM's cell.
template <class T, class W> struct CellStep {
  const W *sums, *state_sums;
  const T* h_before;
  const W* c_before;
  T* h;
  W* c;
  T* gates;
  std::int64_t n;  // hidden

  CellStep row(Cell cell, std::int64_t r) const {
    const std::int64_t g = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
    return {cell_row(sums, r, g * n),  cell_row(state_sums, r, 3 * n),
            cell_row(h_before, r, n),  cell_row(c_before, r, n),
            cell_row(h, r, n),         cell_row(c, r, n),
            cell_row(gates, r, 4 * n), n};
  }
};

template <class T, class W> struct CellStepBack {
  const T *gates, *h, *h_before;
  const W *c_before, *c;
  const T* dy;
  W *dh, *dc;
  T *dsums, *dstate_sums;
  std::int64_t n;

  CellStepBack row(Cell cell, std::int64_t r) const {
    const std::int64_t g = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
    return {cell_row(gates, r, 4 * n),
            cell_row(h, r, n),
            cell_row(h_before, r, n),
            cell_row(c_before, r, n),
            cell_row(c, r, n),
            cell_row(dy, r, n),
            cell_row(dh, r, n),
            cell_row(dc, r, n),
            cell_row(dsums, r, g * n),
            cell_row(dstate_sums, r, 3 * n),
            n};
  }
};

}  // namespace mezzo::kernels
