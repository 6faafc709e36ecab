// custom_function.cpp - a function with a gradient of its own that needs f32: under autocast its inputs are cast and autocast is off inside.
#include <cstdio>

#include <mezzo/mezzo.h>

using namespace mezzo;

/// log(1 + x^2), whose square overflows f16 from 256 on. torch's @custom_fwd(cast_inputs=torch.float32) and @custom_bwd.
struct LogSquare : autograd::Function<LogSquare> {
  static constexpr amp::FunctionOptions options{.cast_inputs = f32};

  static Tensor forward(autograd::Context& context, const Tensor& x) {
    context.save({x});
    return log(x * x + 1.0);
  }
  static Tensor backward(autograd::Context& context, const Tensor& dy) {
    const Tensor& x = context.saved()[0];
    return dy * (x * 2.0) / (x * x + 1.0);
  }
};

int main() {
  const Tensor x = tensor({1, 300, 3000}, {3}, {.dtype = f16, .requires_grad = true});
  const amp::Autocast region(f16);

  const Tensor plain = x * x + 1.0;      // f16: Inf
  const Tensor y = LogSquare::apply(x);  // f32 inside and outside
  sum(y).backward();

  const auto values = y.to_vector(), gradients = x.grad().to_vector();
  std::printf("x*x in f16: %g; log(1 + x*x): %.2f %.2f %.2f; gradient, in f16 again: %.4f %.4f %.6f\n", plain.to_vector()[2], values[0], values[1],
              values[2], gradients[0], gradients[1], gradients[2]);
  return y.dtype() == f32 && x.grad().dtype() == f16 && values[2] > 16 && values[2] < 16.1 && gradients[2] > 6e-4 ? 0 : 1;
}
