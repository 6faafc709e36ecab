// clip_unscaled.cpp - gradients are looked at and clipped as what they are: unscale() first. step() then does not unscale again.
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0;
  const Tensor y = sin(x * 2.0) * 30.0;  // targets this large make the first gradients large

  nn::Mlp model({.in = 1, .width = 64, .out = 1, .layers = 2});
  optim::AdamW opt(model.parameters(), {.lr = 1e-2});
  amp::GradScaler scaler({.init_scale = 1024});

  double first = 0, last = 0, largest = 0;
  for (int step = 0; step < 300; ++step) {
    opt.zero_grad();
    const Tensor loss = amp::autocast(f16, [&] { return mse_loss(model(x), y); });
    scaler.scale(loss).backward();
    scaler.unscale(opt);
    const double norm = optim::clip_grad_norm(model.parameters(), 1.0);  // the same in one pass: step(opt, {.clip_norm = 1})
    const auto result = scaler.step(opt);
    scaler.update();
    if (result.applied && norm > largest) largest = norm;
    if (result.applied && result.grad_norm > 1.001) return 1;  // what the optimizer saw
    (step == 0 ? first : last) = loss.item();
  }
  std::printf("loss %.0f -> %.1f, largest norm before clipping %.0f\n", first, last, largest);
  return last < 0.05 * first && largest > 10 ? 0 : 1;
}
