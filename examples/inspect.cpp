// inspect.cpp - what numbers a model computes with: the gradients that f16 loses, what FP8 would make of them, and the op in which an overflow began.
#include <cstdio>
#include <memory>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  nn::Mlp model({.in = 64, .width = 256, .out = 8, .layers = 2});
  optim::AdamW opt(model.named_parameters(), {.lr = 1e-3});
  const Tensor x = randn({128, 64}), y = mul(randn({128, 8}), 1e-3);
  const auto loss = [&](double scale) { return mul(mse_loss(model.forward(x), y), scale); };

  // One step without loss scaling, watched.
  inspect::Inspector inspector({.formats = {"fp8_e5m2", "mxfp8_e4m3"}});
  {
    const amp::Autocast region(f16);
    const auto watching = inspector.watch();
    loss(1).backward();
  }
  inspector.parameters(model);
  inspector.before_update(opt);
  opt.step();
  inspector.after_update();

  for (const auto& r : inspector.take()) {
    if (r.kind != inspect::Kind::activation_gradient || r.op != "linear") continue;
    const double lost = static_cast<double>(r.ranges.zero + r.ranges.below(-14)) / static_cast<double>(r.ranges.count);
    std::printf("layer %s: %3.0f %% of the gradients of linear are zero or subnormal in %s; as %s %3.0f %% of the others would be zero\n",
                r.module.c_str(), 100 * lost, std::string(name(r.dtype)).c_str(), std::string(r.conversions[0].format).c_str(),
                100 * r.conversions[0].flushed);
  }

  // The same with a scale that is too large.
  const auto overflow = inspect::find_overflow([&] {
    const amp::Autocast region(f16);
    loss(1e12).backward();
  });
  if (overflow)
    std::printf("%s began %s %s in %s\n", overflow->nan ? "NaN" : "Inf", overflow->arrived ? "in the gradient that reached" : "in the backward of",
                overflow->op.c_str(), overflow->module.c_str());
}
