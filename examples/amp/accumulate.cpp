// accumulate.cpp - four micro-batches make one step: the scale stays as it is between them, step() and update() come after the last.
#include <cmath>
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

constexpr int kMicro = 4;
constexpr std::int64_t kRows = 32;

/// The loss after 30 steps over the same 128 rows, in one piece or in four.
double learn(bool accumulate) {
  manual_seed(1);
  const Tensor x = rand({kMicro * kRows, 1}) * 4.0 - 2.0, y = sin(x * 2.0);
  nn::Mlp model({.in = 1, .width = 64, .out = 1, .layers = 2});
  optim::Sgd opt(model.parameters(), {.lr = 0.05, .momentum = 0.9});
  amp::GradScaler scaler;

  for (int step = 0; step < 30; ++step) {
    if (accumulate) {
      for (int micro = 0; micro < kMicro; ++micro) {
        const Tensor part = x.narrow(0, micro * kRows, kRows), wanted = y.narrow(0, micro * kRows, kRows);
        const Tensor loss = amp::autocast(f16, [&] { return mse_loss(model(part), wanted) / kMicro; });
        scaler.scale(loss).backward();  // .grad adds up
      }
    } else {
      scaler.scale(amp::autocast(f16, [&] { return mse_loss(model(x), y); })).backward();
    }
    scaler.step(opt);
    scaler.update();
    opt.zero_grad();
  }
  const autograd::NoGrad off;
  return mse_loss(model(x), y).item();
}

}  // namespace

int main() {
  const double whole = learn(false), parts = learn(true);
  std::printf("loss in one piece %.4f, in four %.4f\n", whole, parts);
  return whole < 0.2 && std::abs(whole - parts) < 0.05 * whole ? 0 : 1;
}
