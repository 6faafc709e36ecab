// several_threads.cpp - a region belongs to its thread: each thread opens its own. Here each trains its own model, with its own optimizer and scaler,
// in its own format.
#include <array>
#include <cstdio>
#include <memory>
#include <thread>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  const Tensor x = rand({256, 1}) * 4.0 - 2.0, y = sin(x * 2.0);  // read by all

  std::array<std::unique_ptr<nn::Mlp>, 3> models;  // made here: the default generator is not for several threads at once
  for (auto& m : models) m = std::make_unique<nn::Mlp>(nn::MlpOptions{.in = 1, .width = 64, .out = 1, .layers = 2});

  std::array<double, 3> losses{};
  const auto work = [&](std::size_t i) {
    const Dtype dtype = i == 0 ? f32 : i == 1 ? bf16 : f16;
    nn::Mlp& model = *models[i];
    optim::AdamW opt(model.parameters(), {.lr = 3e-3});
    amp::GradScaler scaler({.enabled = dtype == f16});
    for (int step = 0; step < 150; ++step) {
      opt.zero_grad();
      Tensor loss;
      {
        const amp::Autocast region(dtype, {.enabled = dtype != f32});
        loss = mse_loss(model(x), y);
      }
      scaler.scale(loss).backward();
      scaler.step(opt);
      scaler.update();
      losses[i] = loss.item();
    }
  };
  std::thread first(work, 1), second(work, 2);
  work(0);
  first.join();
  second.join();

  std::printf("f32 %.4f  bf16 %.4f  f16 %.4f\n", losses[0], losses[1], losses[2]);
  for (const double loss : losses)
    if (!(loss < 0.02)) return 1;
}
