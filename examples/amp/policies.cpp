// policies.cpp - which precision an op runs in under autocast, changed for two of them; and a weight that stays f32 in storage.
#include <iostream>

#include <mezzo/mezzo.h>

using namespace mezzo;

int main() {
  amp::Policy policy = amp::Policy::mezzo();
  policy.set("softmax", amp::Cast::f32).set("gelu", amp::Cast::f32);
  const std::string printed = to_string(policy);
  std::cout << printed.substr(0, printed.find('\n')) << '\n';

  const Tensor x = randn({4, 8});
  nn::Linear layer({.in = 8, .out = 8});
  layer.keep("weight", f32).to(bf16);

  const amp::Autocast region(bf16, {.policy = policy});
  const Tensor h = layer(x);  // the kept weight is multiplied as its 16-bit copy
  const Tensor y = softmax(h, -1);
  std::cout << "weight " << layer.weight.dtype() << ", product " << h.dtype() << ", softmax " << y.dtype() << '\n';
  return layer.weight.dtype() == f32 && h.dtype() == bf16 && y.dtype() == f32 ? 0 : 1;
}
