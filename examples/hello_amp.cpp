// hello_amp.cpp - mixed precision in a training loop of your own: one autocast region, one gradient scaler.
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0;  // (N, 1) in [-2, 2)
  const Tensor y = sin(x * 2.0);

  nn::Mlp model({.in = 1, .width = 64, .out = 1, .layers = 2});
  optim::AdamW opt(model.parameters(), {.lr = 3e-3});
  amp::GradScaler scaler({.init_scale = 0x1p26});

  for (int step = 0; step <= 200; ++step) {
    opt.zero_grad();
    const Tensor loss = amp::autocast(f16, [&] { return mse_loss(model(x), y); });
    scaler.scale(loss).backward();
    const auto result = scaler.step(opt, {.clip_norm = 1});
    scaler.update();

    if (!result.applied) {
      std::printf("step %3d  skipped: Inf in %s at scale %.0f\n", step, result.culprit.c_str(), result.scale);
    } else if (step % 50 == 0) {
      std::printf("step %3d  loss %.4f  scale %.0f\n", step, loss.item(), result.scale);
    }
  }
}
