// typical_loop.cpp - the loop of mixed-precision training: forward in a region, the loss scaled, step, update.
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0;  // (N, 1) in [-2, 2)
  const Tensor y = sin(x * 2.0);

  nn::Mlp model({.in = 1, .width = 64, .out = 1, .layers = 2});
  optim::Sgd opt(model.parameters(), {.lr = 0.1, .momentum = 0.9});
  amp::GradScaler scaler;

  double last = 0;
  for (int step = 0; step < 400; ++step) {
    opt.zero_grad();
    const Tensor loss = amp::autocast(f16, [&] { return mse_loss(model(x), y); });
    scaler.scale(loss).backward();
    scaler.step(opt);  // skipped when a gradient holds Inf or NaN
    scaler.update();
    last = loss.item();
  }
  std::printf("loss %.3f, scale %.0f\n", last, scaler.get_scale());
  return last < 0.02 ? 0 : 1;
}
