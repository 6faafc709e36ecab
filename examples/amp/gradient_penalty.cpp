// gradient_penalty.cpp - the norm of the gradient as a part of the loss: autograd::grad of the scaled loss, unscaled out of place, then backward
// through it.
#include <cmath>
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

namespace {

/// Loss and gradient norm after 40 steps with `weight` times the gradient's norm in the loss.
std::pair<double, double> learn(double weight) {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0, y = sin(x * 2.0);
  nn::Mlp model({.in = 1, .width = 64, .out = 1, .layers = 2});
  optim::AdamW opt(model.parameters(), {.lr = 1e-3});
  amp::GradScaler scaler({.init_scale = 1024});

  double loss_value = 0, norm_value = 0;
  for (int step = 0; step < 40; ++step) {
    opt.zero_grad();
    const Tensor loss = amp::autocast(f16, [&] { return mse_loss(model(x), y); });

    const auto scaled = autograd::grad({scaler.scale(loss)}, model.parameters(), {.create_graph = true});
    const double inverse = 1 / scaler.get_scale();
    const Tensor total = amp::autocast(f16, [&] {
      Tensor squares;
      for (const auto& s : scaled) {
        const Tensor g = s * inverse, square = sum(g * g);
        squares = squares.defined() ? squares + square : square;
      }
      const Tensor norm = sqrt(squares);
      norm_value = norm.item();
      return loss + norm * weight;
    });

    scaler.scale(total).backward();
    scaler.step(opt);
    scaler.update();
    loss_value = loss.item();
  }
  return {loss_value, norm_value};
}

}  // namespace

int main() {
  const auto plain = learn(0), penalised = learn(0.1);
  std::printf("without: loss %.3f, norm %.2f; with: loss %.3f, norm %.2f\n", plain.first, plain.second, penalised.first, penalised.second);
  return penalised.second < plain.second && penalised.first < 0.45 ? 0 : 1;
}
