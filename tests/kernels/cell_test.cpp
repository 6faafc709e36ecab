// cell_test.cpp - a step of each recurrent cell, forward and backward, against ref/ in double; ref's backward against complex steps.
#include "guarded.h"
#include "kernels/kernels.h"
#include "kernels/ref/cell.h"

using namespace mezzo;
using namespace mezzo::test;
using namespace mezzo::kernels;

namespace {

constexpr std::int64_t kRows = 3;

std::int64_t gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

/// Results are made of numbers up to a few, by at most two dozen roundings in f32 and one to T.
template <class T> void close(const char* what, const Guarded<T>& got, const std::vector<double>& want) {
  check_close(what, got, want, [&](std::int64_t i) { return 64 * kUnit32 * (1 + std::abs(want[i])) + unit<T>() * std::abs(want[i]) + tiny<T>(); });
}

template <class T> void check(Cell cell, std::int64_t n, std::int64_t offset) {
  CAPTURE(static_cast<int>(cell));
  CAPTURE(n);
  const bool lstm = cell == Cell::lstm, gru = cell == Cell::gru;
  const auto g = gates_of(cell) * n, all = kRows * n;
  const Guarded<float> sums(kRows * g, offset, Normals(1)), state(gru ? kRows * g : 0, 1, Normals(2)), c_before(all, 2, Normals(3));
  const Guarded<T> h_before(all, offset, Normals(4, 0.5));
  Guarded<T> h(all, offset), gates(kRows * 4 * n, 3);
  Guarded<float> c(all, 1);
  const auto step = [&](T* h_out, float* c_out, T* gates_out) {
    kernels::cell(cpu_queue(), cell, dtype_of<T>, sums.data(), gru ? state.data() : nullptr, gru ? h_before.data() : nullptr,
                  lstm ? c_before.data() : nullptr, h_out, lstm ? c_out : nullptr, gates_out, kRows, n);
  };
  step(h.data(), c.data(), gates.data());
  std::vector<double> h64(all), c64(all), gates64(kRows * 4 * n);
  const auto sums64 = sums.values(), state64 = state.values(), c_before64 = c_before.values(), h_before64 = h_before.values();
  const CellStep<double, double> exact{sums64.data(), state64.data(), h_before64.data(), c_before64.data(),
                                       h64.data(),    c64.data(),     gates64.data(),    n};
  for (std::int64_t r = 0; r < kRows; ++r) ref::cell_row(cell, exact.row(cell, r));
  close("h", h, h64);
  if (lstm) close("c", c, c64);
  if (lstm || gru) close("gates", gates, gates64);

  Guarded<T> h_alone(all, 1);  // without what only backward needs, and with the cell in place
  Guarded<float> c_place = c_before;
  kernels::cell(cpu_queue(), cell, dtype_of<T>, sums.data(), gru ? state.data() : nullptr, gru ? h_before.data() : nullptr,
                lstm ? c_place.data() : nullptr, h_alone.data(), lstm ? c_place.data() : nullptr, nullptr, kRows, n);
  CHECK(h_alone.same_bits(h));
  if (lstm) CHECK(c_place.same_bits(c));

  // Backward from what was stored.
  const Guarded<T> dy(all, offset, Normals(5));
  const Guarded<float> dh0(all, 1, Normals(6)), dc0(all, 0, Normals(7));
  for (const bool with_dy : {true, false}) {
    Guarded<float> dh = dh0, dc = dc0;
    Guarded<T> dsums(kRows * g, 2), dstate(gru ? kRows * g : 0);
    const auto back = [&](const T* saved, float* into_h, float* into_c, T* out) {
      cell_backward(cpu_queue(), cell, dtype_of<T>, saved, h.data(), h_before.data(), c_before.data(), c.data(), with_dy ? dy.data() : nullptr,
                    into_h, into_c, out, gru ? dstate.data() : nullptr, kRows, n);
    };
    back(gates.data(), dh.data(), dc.data(), dsums.data());
    auto dh64 = dh0.values(), dc64 = dc0.values();
    std::vector<double> dsums64(kRows * g), dstate64(kRows * g);
    const auto saved64 = gates.values(), out64 = h.values(), cells64 = c.values(), dy64 = dy.values();
    const CellStepBack<double, double> wanted{saved64.data(),
                                              out64.data(),
                                              h_before64.data(),
                                              c_before64.data(),
                                              cells64.data(),
                                              with_dy ? dy64.data() : nullptr,
                                              dh64.data(),
                                              dc64.data(),
                                              dsums64.data(),
                                              dstate64.data(),
                                              n};
    for (std::int64_t r = 0; r < kRows; ++r) ref::cell_row_backward(cell, wanted.row(cell, r));
    close("dsums", dsums, dsums64);
    close("dh", dh, dh64);
    if (gru) close("dstate", dstate, dstate64);
    if (!lstm) continue;
    close("dc", dc, dc64);
    Guarded<T> place = gates;
    Guarded<float> dh2 = dh0, dc2 = dc0;
    back(place.data(), dh2.data(), dc2.data(), place.data());
    CHECK(place.same_bits(dsums));
  }
}

using Complex = std::complex<double>;

}  // namespace

TEST_CASE("cells: a step in each dtype at every width") {
  for (const Cell cell : {Cell::rnn_tanh, Cell::rnn_relu, Cell::lstm, Cell::gru})
    for (const std::int64_t n : lengths({100, 129})) {
      check<float>(cell, n, n % 3);
      check<f16_t>(cell, n, n % 2);
      check<bf16_t>(cell, n, n % 5);
    }
}

TEST_CASE("cells: an LSTM's gates may take the place of its sums") {
  constexpr std::int64_t kHidden = 37;
  Guarded<float> sums(kRows * 4 * kHidden, 1, Normals(1)), place = sums, gates(kRows * 4 * kHidden);
  const Guarded<float> c_before(kRows * kHidden, 0, Normals(2));
  Guarded<float> h(kRows * kHidden), c(kRows * kHidden), h2(kRows * kHidden), c2(kRows * kHidden);
  cell(cpu_queue(), Cell::lstm, f32, sums.data(), nullptr, nullptr, c_before.data(), h.data(), c.data(), gates.data(), kRows, kHidden);
  cell(cpu_queue(), Cell::lstm, f32, place.data(), nullptr, nullptr, c_before.data(), h2.data(), c2.data(), place.data(), kRows, kHidden);
  CHECK(place.same_bits(gates));
  CHECK(h2.same_bits(h));
  CHECK(place.intact());
}

TEST_CASE("cells: f64") {
  const double sums[4] = {0.1, -0.2, 0.3, 0.4}, before = 0.5;
  double h = 0, c = 0, gates[4];
  cell(cpu_queue(), Cell::lstm, f64, sums, nullptr, nullptr, &before, &h, &c, gates, 1, 1);
  const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
  const double want = logistic(-0.2) * 0.5 + logistic(0.1) * std::tanh(0.3);
  CHECK(std::abs(c - want) < 1e-16);
  CHECK(std::abs(h - logistic(0.4) * std::tanh(want)) < 1e-16);
}

TEST_CASE("ref: the cells' slopes are their derivatives, by complex steps") {
  Normals normal(8);
  for (int round = 0; round < 20; ++round) {
    std::vector<Complex> x(7);
    for (auto& v : x) v = normal();
    const double dh = normal(), dc = normal();
    const auto lstm = [&](const std::vector<Complex>& v) {
      const auto s = ref::lstm(v[0], v[1], v[2], v[3], v[4]);
      return s.h * dh + s.c * dc;
    };
    const auto l = ref::lstm(x[0].real(), x[1].real(), x[2].real(), x[3].real(), x[4].real());
    const auto ls = ref::lstm_backward(l.i, l.f, l.g, l.o, x[4].real(), l.c, dh, dc);
    const double lstm_slopes[] = {ls.i, ls.f, ls.g, ls.o, ls.c_before};
    for (int i = 0; i < 5; ++i) CHECK(std::abs(complex_step(x, i, lstm) - lstm_slopes[i]) < 1e-14);

    const auto gru = [&](const std::vector<Complex>& v) { return ref::gru(v[0], v[1], v[2], v[3], v[4], v[5], v[6]).h * dh; };
    const auto g = ref::gru(x[0].real(), x[1].real(), x[2].real(), x[3].real(), x[4].real(), x[5].real(), x[6].real());
    const auto gs = ref::gru_backward(g.r, g.z, g.n, x[5].real(), x[6].real(), dh);
    const double gru_slopes[] = {gs.r, gs.z, gs.n, gs.r, gs.z, gs.state_n, gs.h_before};
    for (int i = 0; i < 7; ++i) CHECK(std::abs(complex_step(x, i, gru) - gru_slopes[i]) < 1e-14);
  }
}
