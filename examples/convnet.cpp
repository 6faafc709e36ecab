// convnet.cpp - a small convolutional net on images made up on the spot, trained in fp32, bf16 and fp16 from the same start.
#include <cstdio>
#include <memory>
#include <vector>

#include <mezzo/mezzo.h>

using namespace mezzo;

constexpr std::int64_t kSide = 16, kKinds = 4;

struct Images {
  Tensor pixels;  // (N, 1, 16, 16)
  Tensor labels;  // (N) i64
};

/// Stripes that lie, stand, rise or fall, at a random place and brightness, under noise.
Images draw(std::int64_t n, Generator& random) {
  std::vector<float> pixels;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto kind = static_cast<std::int64_t>(random.below(kKinds)), shift = static_cast<std::int64_t>(random.below(6));
    const float bright = 0.5f + 0.1f * static_cast<float>(random.below(10));
    labels.push_back(kind);
    for (std::int64_t y = 0; y < kSide; ++y)
      for (std::int64_t x = 0; x < kSide; ++x) {
        const std::int64_t along = kind == 0 ? y : kind == 1 ? x : kind == 2 ? x + y : x - y + kSide;
        pixels.push_back((along + shift) % 6 < 3 ? bright : 0.0f);
      }
  }
  const Tensor clean = tensor(std::move(pixels), {n, 1, kSide, kSide});
  return {clean + randn(clean.shape(), random) * 0.5, from_span<std::int64_t>(labels, {n})};
}

class ConvNet : public nn::Module {
 public:
  ConvNet() {
    first_ = register_module("first", std::make_shared<nn::Conv2d>(nn::Conv2dOptions{.in = 1, .out = 16, .kernel = 3, .padding = 1, .bias = false}));
    first_norm_ = register_module("first_norm", std::make_shared<nn::BatchNorm2d>(nn::BatchNorm2dOptions{.dim = 16}));
    second_ =
        register_module("second", std::make_shared<nn::Conv2d>(nn::Conv2dOptions{.in = 16, .out = 32, .kernel = 3, .padding = 1, .bias = false}));
    second_norm_ = register_module("second_norm", std::make_shared<nn::BatchNorm2d>(nn::BatchNorm2dOptions{.dim = 32}));
    head_ = register_module("head", std::make_shared<nn::Linear>(nn::LinearOptions{.in = 32, .out = kKinds}));
  }
  Tensor forward(const Tensor& x) override {
    Tensor h = max_pool2d(relu((*first_norm_)((*first_)(x))), {.kernel = 2});  // (N, 16, 8, 8)
    h = relu((*second_norm_)((*second_)(h)));                                  // (N, 32, 8, 8)
    return (*head_)(adaptive_avg_pool2d(h, {1, 1}).reshape({x.size(0), 32}));  // (N, kinds)
  }

 private:
  std::shared_ptr<nn::Conv2d> first_, second_;
  std::shared_ptr<nn::BatchNorm2d> first_norm_, second_norm_;
  std::shared_ptr<nn::Linear> head_;
};

double accuracy(ConvNet& model, const Images& test) {
  const autograd::NoGrad guard;
  model.eval();  // batch norm by its running statistics
  const Tensor logits = model(test.pixels), best = amax(logits, {.dims = {1}, .keepdim = true});
  model.train();
  const Tensor of_label = gather(logits, 1, test.labels.reshape({test.labels.size(0), 1}));
  return mean(eq(of_label, best).to(f32)).item();
}

int main() {
  bool good = true;
  for (const char* recipe : {"fp32", "bf16", "fp16"}) {
    manual_seed(1);
    Generator random(2);
    ConvNet model;
    optim::AdamW opt(model.named_parameters(), {.lr = 1e-2});
    train::Step step(opt, {.recipe = recipe, .clip_norm = 1});
    double first = 0, last = 0;
    for (int i = 0; i < 30; ++i) {
      const Images batch = draw(64, random);
      const auto report = step([&](int) { return cross_entropy(model(batch.pixels), batch.labels); });
      (i == 0 ? first : last) = report.loss;
    }
    const double right = accuracy(model, draw(256, random));
    std::printf("%-4s  loss %.2f -> %.2f, %.0f %% of new images right\n", recipe, first, last, 100 * right);
    good = good && last < 0.25 * first && right > 0.95;
  }
  return good ? 0 : 1;
}
