// threads.cpp - one model read by two threads, each in a precision of its own: autocast and grad mode belong to the thread (docs/threads.md).
#include <cmath>
#include <cstdio>
#include <thread>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  manual_seed(1);
  nn::Mlp model({.in = 32, .width = 64, .out = 1, .layers = 2});
  const Tensor x = randn({128, 32});

  double exact = 0, low = 0;
  const auto evaluate = [&] {
    const autograd::NoGrad guard;
    return mean(model(x)).item();
  };
  std::thread in_f32([&] { exact = evaluate(); });
  std::thread in_bf16([&] { low = amp::autocast(bf16, evaluate); });
  in_f32.join();
  in_bf16.join();

  std::printf("f32 %.4f  bf16 %.4f\n", exact, low);
  return exact != low && std::abs(exact - low) < 0.01 ? 0 : 1;
}
