// train_step.cpp - the loop with train::Step, once for each precision recipe: same model, same data, same learning rate; other bytes.
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  std::printf("recipe         loss  bytes of weights  masters  gradients   states  cast cache\n");
  for (const std::string& name : train::recipe_names()) {
    const train::Recipe recipe = train::recipe(name);
    manual_seed(1);
    const Tensor x = randn({128, 64});                       // (N, in)
    const Tensor y = tanh(matmul(x, randn({64, 8})) * 0.1);  // (N, out)

    nn::Mlp model({.in = 64, .width = 128, .out = 8, .layers = 2});
    optim::AdamW opt(model.parameters(), {.lr = 1e-3, .storage = recipe.storage, .low = recipe.low});
    train::Step step(opt, {.recipe = name, .clip_norm = 1});

    train::StepReport report;
    for (int i = 0; i < 20; ++i) {
      report = step([&](int) { return mse_loss(model(x), y); });
    }

    const optim::OptimizerBytes bytes = opt.bytes();
    const auto cast_cache = memory_report().bytes[static_cast<std::size_t>(Memory::cast_cache)];
    std::printf("%-12s %.4f %17lld %8lld %10lld %8lld %11lld\n", name.c_str(), report.loss, static_cast<long long>(bytes.weights),
                static_cast<long long>(bytes.masters), static_cast<long long>(bytes.gradients), static_cast<long long>(bytes.states),
                static_cast<long long>(cast_cache));
  }
}
