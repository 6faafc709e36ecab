// several_models.cpp - two models, two losses, two optimizers, one scaler: scale each loss, step each optimizer, update once. Each optimizer skips
// by itself; an overflow in either brings the scale down.
#include <cstdio>
#include <limits>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0, y0 = sin(x * 2.0), y1 = cos(x);

  nn::Mlp model0({.in = 1, .width = 64, .out = 1}), model1({.in = 1, .width = 64, .out = 1});
  optim::AdamW opt0(model0.parameters(), {.lr = 1e-2}), opt1(model1.parameters(), {.lr = 1e-2});
  amp::GradScaler scaler;

  int skipped0 = 0, skipped1 = 0;
  double last0 = 0, last1 = 0;
  for (int step = 0; step < 300; ++step) {
    opt0.zero_grad();
    opt1.zero_grad();
    const auto losses = amp::autocast(f16, [&] {
      const Tensor out0 = model0(x), out1 = model1(x);
      return std::vector{mse_loss(out0, y0) + mse_loss(out1 * 0.1, y0) * 0.1, mse_loss(out1, y1)};
    });
    const auto scaled = scaler.scale(losses);
    scaled[0].backward({.retain_graph = true});  // both losses go through model1
    scaled[1].backward();
    if (step == 100) fill_(model1.parameters()[0].grad(), std::numeric_limits<double>::infinity());  // something goes wrong in one of them

    scaler.unscale(opt0);  // any of them, to clip or to look
    optim::clip_grad_norm(model0.parameters(), 1.0);
    skipped0 += !scaler.step(opt0).applied;
    skipped1 += !scaler.step(opt1).applied;
    scaler.update();
    last0 = losses[0].item();
    last1 = losses[1].item();
  }
  std::printf("losses %.3f and %.3f, skipped %d and %d, scale %.0f\n", last0, last1, skipped0, skipped1, scaler.get_scale());
  return last0 < 0.2 && last1 < 0.1 && skipped0 == 0 && skipped1 == 1 && scaler.get_scale() == 32768 ? 0 : 1;
}
