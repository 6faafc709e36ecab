// user_module.cpp - a module and a differentiable function of your own; both work under autocast like the built-in ones.
#include <cstdio>
#include <memory>

#include <mezzo/mezzo.h>

using namespace mezzo;

/// relu(x)^2 (So et al., "Primer", arXiv 2109.08668) with its gradient by hand. Its square would leave f16's range early: inputs are cast to f32.
struct SquaredRelu : autograd::Function<SquaredRelu> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};

  static Tensor forward(autograd::Context& context, const Tensor& x) {
    const Tensor positive = relu(x);
    context.save({positive});
    return positive * positive;
  }
  static Tensor backward(autograd::Context& context, const Tensor& dy) { return dy * context.saved()[0] * 2.0; }
};

struct FeedForwardOptions {
  std::int64_t width = 0, hidden = 0;
};

/// x + down(SquaredRelu(up(norm(x)))): x (..., width).
class FeedForward : public nn::Module {
 public:
  explicit FeedForward(FeedForwardOptions o)
      : norm_(register_module("norm", std::make_shared<nn::RmsNorm>(nn::RmsNormOptions{.dim = o.width}))),
        up_(register_module("up", std::make_shared<nn::Linear>(nn::LinearOptions{.in = o.width, .out = o.hidden, .bias = false}))),
        down_(register_module("down", std::make_shared<nn::Linear>(nn::LinearOptions{.in = o.hidden, .out = o.width, .bias = false}))),
        gain_(register_parameter("gain", ones({o.width}))) {}

  Tensor forward(const Tensor& x) override {
    const Tensor hidden = SquaredRelu::apply((*up_)((*norm_)(x)));
    return x + (*down_)(hidden)*gain_;
  }

 private:
  std::shared_ptr<nn::RmsNorm> norm_;
  std::shared_ptr<nn::Linear> up_, down_;
  Tensor gain_;
};

int main() {
  manual_seed(1);
  const auto block = std::make_shared<FeedForward>(FeedForwardOptions{.width = 32, .hidden = 128});
  nn::Sequential model({block, std::make_shared<nn::Linear>(nn::LinearOptions{.in = 32, .out = 4})});
  for (const auto& [name, parameter] : model.named_parameters()) std::printf("%-14s %s\n", name.c_str(), to_string(parameter.shape()).c_str());

  // The gradient by hand against the one that plain ops give.
  const Tensor x = randn({64, 32}, {.requires_grad = true});
  const Tensor by_hand = autograd::grad({sum(SquaredRelu::apply(x))}, {x})[0];
  const Tensor by_ops = autograd::grad({sum(pow(relu(x), 2.0))}, {x})[0];
  const double difference = amax(abs(by_hand - by_ops)).item();
  std::printf("gradient by hand and by ops differ by %.1e at most\n", difference);

  const Tensor labels = from_span<std::int64_t>(std::vector<std::int64_t>(64, 3), {64});
  optim::AdamW opt(model.named_parameters(), {.lr = 1e-2});
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    opt.zero_grad();
    const Tensor loss = amp::autocast(bf16, [&] { return cross_entropy(model(x.detach()), labels); });
    loss.backward();
    opt.step();
    (step == 0 ? first : last) = loss.item();
  }
  std::printf("bf16: loss %.2f -> %.2f\n", first, last);
  return difference < 1e-5 && last < 0.1 * first ? 0 : 1;
}
